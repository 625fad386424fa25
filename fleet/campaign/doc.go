// Package campaign decides what a campaign does next, from its specification, its state,
// the numbers of its runs and the time. It is pure: it stores nothing, starts nothing and
// reads no clock, so whoever calls it again with the same arguments gets the same
// decision.
//
// Assign distributes the devices over the waves when the campaign begins. Decide is
// called after every change and at the time that its last decision names. The other
// functions are what people do: Submit, Approve, Edit, Pause, Resume and Stop.
package campaign
