// Package api is the HTTP API of the fleet service, for programs: /api/v1, described by
// the OpenAPI document at /api/v1/openapi.json, which GET /api/v1/ shows to people. It
// translates between HTTP and the operations of a Service and has no rules of its own.
//
// Programs authenticate with a token in the Authorization header (RFC 6750). Cookies are
// not looked at, so that web sites cannot use the API in the name of their visitors.
// Errors are problem details (RFC 9457). What happens is streamed as server-sent events.
package api
