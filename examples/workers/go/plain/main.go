// A plain worker: it answers HTTP, checks signatures, and knows two headers. Its task writes a receipt into a file.
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"sync"

	"example.com/hurlbat-workers/signed"
)

var orders = regexp.MustCompile(`^[\w-]+$`)
var receipts sync.Map // by the run's id, "" while one is written; to outlive a restart, take a table with a unique key

func write(w http.ResponseWriter, message signed.Message) {
	var input struct {
		Order  string
		Amount float64
	}
	run := message.Data.Runs[0]
	if json.Unmarshal(run.Input, &input) != nil || !orders.MatchString(input.Order) || input.Amount <= 0 {
		w.Header().Set("hurlbat-retry", "no")
		http.Error(w, "order and amount are wanted", http.StatusUnprocessableEntity)
		return
	}
	receipt, known := receipts.LoadOrStore(run.RunID, "")
	if known && receipt == "" {
		w.Header().Set("retry-after", "5") // it waits so long, uncharged
		http.Error(w, "still at it", http.StatusServiceUnavailable)
		return
	}
	if !known {
		receipt = input.Order + ".txt"
		path := filepath.Join(os.Getenv("RECEIPTS"), input.Order+".txt")
		if err := os.WriteFile(path, fmt.Appendln(nil, input.Amount), 0o644); err != nil {
			receipts.Delete(run.RunID) // only success is remembered: a failed one is to be tried again
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		receipts.Store(run.RunID, receipt)
	}
	signed.Answer(w, map[string]any{"receipt": receipt})
}

func main() { signed.Serve(write, nil) }
