// Package service carries out the operations that package operations defines: it checks
// who may do what, validates what it is given, stores it, and writes the audit.
//
// A change is stored first and is then in the audit, before the operation returns. An
// operation with a request ID (operations.Caller) that is in the audit already is not
// carried out again. Lists and numbers come from the view, which follows what is stored;
// an operation that changes the inventory waits until the view has the change.
package service
