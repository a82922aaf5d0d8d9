package conformance

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/gateway-api/conformance/tests"
)

// known says which features each test of the suite needs: docs/reference/gateway-api.md is made from it.
//
//go:embed features.tsv
var known string

// TestFeatures holds features.tsv to the suite: a line for each test, its features after it.
func TestFeatures(t *testing.T) {
	var lines []string
	for _, test := range tests.ConformanceTests {
		line := []string{test.ShortName}
		for _, feature := range test.Features {
			line = append(line, string(feature))
		}
		lines = append(lines, strings.Join(line, "\t")+"\n")
	}
	slices.Sort(lines)
	if now := strings.Join(lines, ""); now != known {
		t.Errorf("features.tsv is to be:\n%s", fmt.Sprint(now))
	}
}
