// Package conformance runs the official Gateway API conformance suite, unmodified.
package conformance

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

// TestConformance runs what the suite's flags choose; those of this repository's command `conformance` are in
// e2e/src/bin/conformance.
func TestConformance(t *testing.T) {
	conformance.RunConformance(t)
}
