// Package notify tells people and programs what happens: webhooks and mail about states of
// campaigns, thresholds and questions.
//
// One node at a time sends. What was sent is recorded after it was sent, so after a failure
// an event may be sent again, with the same ID, and none is left out, unless nobody accepts
// it for a day. Only addresses in networks that the configuration allows are connected to,
// whatever names resolve to; redirects are not followed, and proxies not used.
package notify
