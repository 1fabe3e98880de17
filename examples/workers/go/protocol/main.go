// A protocol worker: it tells its tasks itself, takes several runs at once, streams what happens, and can be cancelled.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"time"

	"example.com/hurlbat-workers/signed"
)

var version = fmt.Sprintf("%x", sha256.Sum256([]byte(fmt.Sprint(declared()))))[:16]
var executions sync.Map // by attempt: those that run here and those of the last minute

type execution struct {
	cancel context.CancelFunc
	result func() object // runs the task when it is called first, and waits for its end
}

func handle(w http.ResponseWriter, message signed.Message) {
	switch message.Type {
	case "describe", "probe": // a probe is content with any 200
		signed.Answer(w, object{"protocol": 1, "version": version, "sdk": "go-example", "max_batch": 16, "tasks": declared()})
	case "cancel":
		signed.Answer(w, object{"runs": cancel(message.Data.Runs)})
	case "deliver":
		deliver(w, message.Data.Runs, time.Duration(message.Data.Heartbeat*float64(time.Second)))
	default:
		http.Error(w, "this is no message that is known here", http.StatusBadRequest)
	}
}

func deliver(w http.ResponseWriter, runs []signed.Run, heartbeat time.Duration) {
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

func execute(run signed.Run, lines chan<- object) {
	ctx, cancel := context.WithCancel(context.Background())
	once := sync.OnceValue(func() object { return perform(ctx, run.Task, run.Input) }) // also where it was sent twice
	known, _ := executions.LoadOrStore(run.Attempt, &execution{cancel, once})
	if tasks[run.Task] != nil {
		lines <- line("started", run, nil)
	}
	lines <- line("result", run, known.(*execution).result())
	time.AfterFunc(time.Minute, func() { executions.Delete(run.Attempt) })
}

func line(kind string, run signed.Run, more object) object {
	line := object{"type": kind, "run_id": run.RunID, "attempt": run.Number}
	maps.Copy(line, more)
	return line
}

func cancel(runs []signed.Run) []object {
	found, stopped := 0, make(chan object, len(runs))
	for _, run := range runs {
		if known, here := executions.Load(run.Attempt); here {
			found++
			known.(*execution).cancel()
			go func() {
				known.(*execution).result() // only what has ended has stopped
				stopped <- line("cancel", run, object{"status": "stopped"})
			}()
		}
	}
	told := []object{}
	for patience := time.After(3 * time.Second); len(told) < found; {
		select {
		case one := <-stopped:
			told = append(told, one)
		case <-patience:
			return told
		}
	}
	return told
}

func main() { signed.Serve(handle, map[string]string{"hurlbat-worker": version}) }
