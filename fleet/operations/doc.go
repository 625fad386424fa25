// Package operations defines what people and programs can do with the fleet: the
// operations, the roles that permit them, and what they take and return. Package
// fleet/service carries them out; packages fleet/api and fleet/ui offer them to programs
// and people, and fleet/client calls them from elsewhere. None of these has rules of its
// own about who may do what.
package operations
