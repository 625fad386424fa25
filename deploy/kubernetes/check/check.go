// Package check holds no code: its test checks the manifests of deploy/kubernetes without an API server. It is a module of its own,
// because the types of Kubernetes bring along many others.
package check
