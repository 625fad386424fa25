// Package ui has the web pages of the fleet service. The server renders them; every one
// works without JavaScript. With it, a small module (static/live.js) replaces the parts of
// a page that have changed when the server says that something happened.
//
// The pages load nothing from elsewhere, and the content security policy permits neither
// scripts nor styles in them. Sessions are in cookies, and requests that change something
// must come from the pages themselves. What devices report is text, whatever it contains.
// The package has no rules of its own: it offers the operations of a Service.
package ui
