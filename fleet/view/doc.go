// Package view is a copy of the inventory and of all runs in an SQLite database, for
// filters, pages and numbers. Feed keeps it up to date from the watches of the engine's
// buckets. It decides nothing and is disposable: Open begins with an empty one.
package view
