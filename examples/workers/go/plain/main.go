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

type message struct {
	Data struct {
		Runs [1]struct{ Input json.RawMessage }
	}
}

type receipt struct {
	lock sync.Mutex // held while it is being written
	Path string     `json:"receipt"` // empty until then
}

var receipts sync.Map // by webhook-id, which is the run's; to outlive a restart, take a table with a unique key
var orders = regexp.MustCompile(`^[\w-]+$`)

func write(w http.ResponseWriter, r *http.Request, message message) {
	var input struct {
		Order  string
		Amount float64
	}
	err := json.Unmarshal(message.Data.Runs[0].Input, &input)
	if err != nil || !orders.MatchString(input.Order) || input.Amount <= 0 {
		w.Header().Set("hurlbat-retry", "no")
		signed.Answer(w, http.StatusUnprocessableEntity, "order and amount are wanted")
		return
	}
	found, _ := receipts.LoadOrStore(r.Header.Get("webhook-id"), &receipt{})
	mine := found.(*receipt)
	if !mine.lock.TryLock() {
		w.Header().Set("retry-after", "5") // it waits so long, uncharged
		signed.Answer(w, http.StatusServiceUnavailable, "still at it")
		return
	}
	defer mine.lock.Unlock()
	if mine.Path == "" {
		path, text := input.Order+".txt", fmt.Sprintln(input.Amount)
		if err := os.WriteFile(filepath.Join(os.Getenv("RECEIPTS"), path), []byte(text), 0o644); err != nil {
			signed.Answer(w, http.StatusInternalServerError, err.Error())
			return
		}
		mine.Path = path // only after success: a failed one is to be tried again
	}
	signed.Answer(w, http.StatusOK, mine)
}

func main() { signed.Serve(write, nil) }
