// Package auth knows who uses the fleet service: users with passwords and roles, their
// sessions in browsers, and their tokens for programs. It stores neither passwords nor
// tokens nor the names of sessions, but hashes of them.
//
// Passwords are hashed with argon2id (RFC 9106). Tokens and sessions are 256 random bits,
// for which one round of SHA-256 is enough. A token permits what both its own role and the
// present role of its user permit. Guessing is slowed down for each address and each user.
package auth
