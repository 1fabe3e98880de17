// Tells how OpenAPI documents differ from a released one, where that breaks whoever keeps to the released one.
//
// Usage: oasdiff released.json other.json …
// It prints, in JSON, a list for each other document, of what breaks: its rule, operation, path and a sentence.
package main

import (
	"encoding/json"
	"log"
	"os"
	"sort"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/oasdiff/oasdiff/checker"
	"github.com/oasdiff/oasdiff/diff"
	"github.com/oasdiff/oasdiff/load"
)

type finding struct {
	Rule      string `json:"rule"`
	Operation string `json:"operation"`
	Path      string `json:"path"`
	Sentence  string `json:"sentence"`
}

// Clients are told to expect values that they do not know.
var harmless = map[string]bool{checker.ResponsePropertyEnumValueAddedId: true}

func main() {
	log.SetFlags(0)
	if len(os.Args) < 3 {
		log.Fatal("usage: oasdiff released.json other.json …")
	}
	all := [][]finding{}
	for _, path := range os.Args[2:] {
		all = append(all, breaks(os.Args[1], path))
	}
	if err := json.NewEncoder(os.Stdout).Encode(all); err != nil {
		log.Fatal(err)
	}
}

// breaks needs both documents fresh, as a comparison changes them.
func breaks(released, other string) []finding {
	report, sources, err := diff.GetWithOperationsSourcesMap(diff.NewConfig(), document(released), document(other))
	if err != nil {
		log.Fatal(err)
	}
	config := checker.NewConfig(checker.GetAllChecks())
	words := checker.NewDefaultLocalizer()
	found := []finding{}
	for _, one := range checker.CheckBackwardCompatibilityUntilLevel(config, report, sources, checker.WARN) {
		if !harmless[one.GetId()] {
			sentence := one.GetUncolorizedText(words)
			found = append(found, finding{one.GetId(), one.GetOperation(), one.GetPath(), sentence})
		}
	}
	sort.Slice(found, func(a, b int) bool {
		return found[a].Path+found[a].Operation+found[a].Sentence < found[b].Path+found[b].Operation+found[b].Sentence
	})
	return found
}

func document(path string) *load.SpecInfo {
	found, err := load.NewSpecInfo(openapi3.NewLoader(), load.NewSource(path))
	if err != nil {
		log.Fatal(err)
	}
	return found
}
