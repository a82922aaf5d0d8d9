//go:build tools

// Package tools names the program that this module is for.
package tools

import _ "helm.sh/helm/v3/cmd/helm"
