// Package fleet has what the parts of the fleet service exchange and store: devices,
// sites, campaigns, runs, questions, backups, workers and audit entries, as JSON, with
// their validation.
//
// A campaign takes many devices through the procedure of package manager. What happens
// to one device in one campaign is a run; its claim says which worker may write it. The
// package stores nothing and decides nothing: package fleet/engine stores, and package
// fleet/campaign decides.
package fleet
