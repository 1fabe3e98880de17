// A protocol worker: it tells its tasks itself, takes several runs at once, streams what happens, and can be cancelled.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"time"

	"example.com/hurlbat-workers/signed"
)

type message struct {
	Type string
	Data struct {
		Heartbeat float64
		Runs      []run
	}
}

type run struct {
	ID      string `json:"run_id"`
	Attempt int
	Task    string
	Input   json.RawMessage
}

type attempt struct {
	cancel context.CancelFunc
	result func() object // runs it when it is called first, and waits for its end
}

var version = fmt.Sprintf("%x", sha256.Sum256([]byte(fmt.Sprint(declared()))))[:16]
var attempts sync.Map // those that run here and those of the last minute

func handle(w http.ResponseWriter, _ *http.Request, message message) {
	switch message.Type {
	case "describe":
		manifest := object{"protocol": 1, "version": version, "sdk": "go-example", "max_batch": 16, "tasks": declared()}
		signed.Answer(w, http.StatusOK, manifest)
	case "probe":
		signed.Answer(w, http.StatusOK, object{})
	case "cancel":
		signed.Answer(w, http.StatusOK, object{"runs": cancel(message.Data.Runs)})
	case "deliver":
		deliver(w, message.Data.Runs, time.Duration(message.Data.Heartbeat*float64(time.Second)))
	default:
		signed.Answer(w, http.StatusBadRequest, "this is no message that is known here")
	}
}

func deliver(w http.ResponseWriter, runs []run, heartbeat time.Duration) {
	w.Header().Set("content-type", "application/x-ndjson")
	lines := make(chan object, 2*len(runs))
	for _, run := range runs {
		go execute(run, lines)
	}
	stream := json.NewEncoder(w)
	for missing := len(runs); missing > 0; {
		select {
		case line := <-lines:
			stream.Encode(line)
			if line["type"] == "result" {
				missing--
			}
		case <-time.After(heartbeat):
			stream.Encode(object{"type": "heartbeat"})
		}
		if len(lines) == 0 { // each line goes out at once, and those that are there together in one piece
			http.NewResponseController(w).Flush()
		}
	}
}

func execute(run run, lines chan<- object) {
	if tasks[run.Task] == nil {
		error := object{"type": "unknown_task", "message": run.Task + " is not served here"}
		lines <- run.line("result", object{"state": "failed", "error": error})
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	once := sync.OnceValue(func() object { return perform(ctx, run) }) // also where it was sent twice
	known, _ := attempts.LoadOrStore(run.key(), &attempt{cancel, once})
	lines <- run.line("started", nil)
	lines <- run.line("result", known.(*attempt).result())
	time.AfterFunc(time.Minute, func() { attempts.Delete(run.key()) })
}

func perform(ctx context.Context, run run) object {
	output, err := tasks[run.Task](ctx, run.Input)
	if len(output) > 1<<20 {
		err = failure{Message: "an output of more than 1 MiB"}
	}
	if err == nil {
		return object{"state": "completed", "output": output}
	}
	said := failure{Retryable: true}
	errors.As(err, &said)
	error := object{"type": fmt.Sprintf("%T", err), "message": err.Error()}
	return object{"state": "failed", "error": error, "retryable": said.Retryable, "retry_after": said.RetryAfter}
}

func cancel(runs []run) []object {
	answers := make(chan object)
	for _, run := range runs {
		go func() { answers <- object{"run_id": run.ID, "attempt": run.Attempt, "status": stop(run)} }()
	}
	told := []object{}
	for range runs {
		told = append(told, <-answers)
	}
	return told
}

func stop(run run) string {
	known, here := attempts.Load(run.key())
	if !here {
		return "unknown"
	}
	known.(*attempt).cancel()
	ended := make(chan object, 1)
	go func() { ended <- known.(*attempt).result() }()
	select {
	case <-ended: // only what has ended has stopped
		return "stopped"
	case <-time.After(3 * time.Second):
		return "unknown"
	}
}

func (r run) key() string { return fmt.Sprint(r.ID, " ", r.Attempt) }

func (r run) line(kind string, told object) object {
	line := object{"type": kind, "run_id": r.ID, "attempt": r.Attempt}
	maps.Copy(line, told)
	return line
}

func main() { signed.Serve(handle, map[string]string{"hurlbat-worker": version}) }
