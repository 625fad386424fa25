// Package inventory reads and writes lists of devices, selects devices by filters, and
// finds devices in a network.
//
// A filter is an expression such as
//
//	site == "north" and version < "2.1.0" and not ("spare" in tags)
//
// with "and", "or", "not" and parentheses. Fields lists the fields. Texts are compared
// with ==, !=, in ["a", "b"], contains, startsWith and endsWith; versions also with <, <=,
// > and >= by semver's order; tags with in; numbers and durations with == to >=. A field
// that is true or false stands alone.
package inventory
