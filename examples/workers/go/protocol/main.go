// A protocol worker: it tells its tasks itself, takes several runs at once, streams what happens, and can be cancelled.
package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

type object = map[string]any

// A task gets its run's input, and a context that is done when the run is cancelled. It returns the output.
type task = func(ctx context.Context, input json.RawMessage) (any, error)

var tasks = map[string]task{
	"shout": typed(func(_ context.Context, input struct{ Text string }) (any, error) {
		return strings.ToUpper(input.Text), nil
	}),
	"conform.echo": func(_ context.Context, input json.RawMessage) (any, error) { return input, nil },
	"conform.sleep": typed(func(ctx context.Context, input struct{ Seconds float64 }) (any, error) {
		select {
		case <-time.After(time.Duration(input.Seconds * float64(time.Second))):
			return object{"slept": input.Seconds}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}),
	"conform.fail": typed(func(_ context.Context, input failure) (any, error) { return nil, input }),
}

// typed makes a task of a function that wants its input as a type of its own.
func typed[Input any](run func(context.Context, Input) (any, error)) task {
	return func(ctx context.Context, raw json.RawMessage) (any, error) {
		var input Input
		if err := json.Unmarshal(raw, &input); err != nil {
			return nil, err
		}
		return run(ctx, input)
	}
}

// A failure is an error that also says whether to try again, and after how many seconds.
type failure struct {
	Message    string
	Retryable  bool
	RetryAfter any `json:"retry_after"`
}

func (f failure) Error() string { return f.Message }

type run struct {
	ID      string `json:"run_id"`
	Attempt int    `json:"attempt"`
	Task    string
	Input   json.RawMessage
}

type line struct {
	Type       string `json:"type"`
	ID         string `json:"run_id,omitempty"`
	Attempt    int    `json:"attempt,omitempty"`
	State      string `json:"state,omitempty"`
	Output     any    `json:"output,omitempty"`
	Error      object `json:"error,omitempty"`
	Retryable  any    `json:"retryable,omitempty"`
	RetryAfter any    `json:"retry_after,omitempty"`
}

type attempt struct {
	cancel context.CancelFunc
	ended  chan struct{}
	result line
}

var (
	webhooks []*standardwebhooks.Webhook // while a secret rotates, any of them may have signed
	version  = fmt.Sprintf("%x", sha256.Sum256([]byte(fmt.Sprint(declared()))))[:16]
	manifest = object{"protocol": 1, "version": version, "sdk": "go-example", "max_batch": 16, "tasks": declared()}
	attempts sync.Map // those that run here and those of the last minute
)

func declared() (list []object) {
	for _, name := range slices.Sorted(maps.Keys(tasks)) {
		list = append(list, object{"name": name, "retries": 3})
	}
	return list
}

func handle(w http.ResponseWriter, r *http.Request) {
	answer := func(status int, body object) {
		w.Header().Set("content-type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(body)
	}
	w.Header().Set("hurlbat-worker", version)
	var message struct {
		Type string
		Data struct {
			Heartbeat float64
			Runs      []run
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 16<<20))
	switch {
	case r.Method != http.MethodPost:
		answer(http.StatusMethodNotAllowed, object{"detail": "POST is what is served here"})
	case err != nil:
		answer(http.StatusRequestEntityTooLarge, object{"detail": "only bodies of up to 16 MiB are taken"})
	case !slices.ContainsFunc(webhooks, func(one *standardwebhooks.Webhook) bool { return one.Verify(body, r.Header) == nil }):
		answer(http.StatusUnauthorized, object{"detail": "the signature is missing, wrong or old"})
	case json.Unmarshal(body, &message) != nil:
		answer(http.StatusBadRequest, object{"detail": "this is no message"})
	case message.Type == "describe":
		answer(http.StatusOK, manifest)
	case message.Type == "probe":
		answer(http.StatusOK, object{})
	case message.Type == "cancel":
		answer(http.StatusOK, object{"runs": cancel(message.Data.Runs)})
	case message.Type == "deliver":
		w.Header().Set("content-type", "application/x-ndjson")
		deliver(w, message.Data.Runs, time.Duration(message.Data.Heartbeat*float64(time.Second)))
	default:
		answer(http.StatusBadRequest, object{"detail": "no " + message.Type + " here"})
	}
}

func deliver(w http.ResponseWriter, runs []run, heartbeat time.Duration) {
	lines := make(chan line, 2*len(runs))
	for _, one := range runs {
		go execute(one, lines)
	}
	stream := json.NewEncoder(w)
	for missing := len(runs); missing > 0; {
		select {
		case one := <-lines:
			stream.Encode(one)
			if one.Type == "result" {
				missing--
			}
		case <-time.After(heartbeat):
			stream.Encode(line{Type: "heartbeat"})
		}
		if len(lines) == 0 { // each line goes out at once, and those that are there together in one piece
			http.NewResponseController(w).Flush()
		}
	}
}

func execute(one run, lines chan<- line) {
	if tasks[one.Task] == nil {
		error := object{"type": "unknown_task", "message": one.Task + " is not served here"}
		lines <- line{Type: "result", ID: one.ID, Attempt: one.Attempt, State: "failed", Error: error}
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	known, twice := attempts.LoadOrStore(key(one), &attempt{cancel: stop, ended: make(chan struct{})})
	mine := known.(*attempt)
	lines <- line{Type: "started", ID: one.ID, Attempt: one.Attempt}
	if !twice { // what was sent twice runs once
		mine.result = perform(ctx, one)
		close(mine.ended)
		time.AfterFunc(time.Minute, func() { attempts.Delete(key(one)) })
	}
	<-mine.ended
	lines <- mine.result
}

func perform(ctx context.Context, one run) (told line) {
	told = line{Type: "result", ID: one.ID, Attempt: one.Attempt, State: "failed"}
	defer func() {
		if problem := recover(); problem != nil {
			told.Error = object{"type": "panic", "message": fmt.Sprint(problem)}
		}
	}()
	output, err := tasks[one.Task](ctx, one.Input)
	text, bad := json.Marshal(output)
	if err = cmp.Or(err, bad); err == nil && len(text) > 1<<20 {
		err = failure{Message: "an output of more than 1 MiB"}
	}
	if err == nil {
		told.State, told.Output = "completed", json.RawMessage(text)
		return told
	}
	said := failure{Retryable: true}
	errors.As(err, &said)
	told.Error = object{"type": fmt.Sprintf("%T", err), "message": err.Error()}
	told.Retryable, told.RetryAfter = said.Retryable, said.RetryAfter
	return told
}

func cancel(runs []run) []object {
	patience, done := context.WithTimeout(context.Background(), 3*time.Second)
	defer done()
	told := []object{}
	for _, one := range runs {
		status := "unknown"
		if known, here := attempts.Load(key(one)); here {
			known.(*attempt).cancel()
			select {
			case <-known.(*attempt).ended: // only what has ended has stopped
				status = "stopped"
			case <-patience.Done():
			}
		}
		told = append(told, object{"run_id": one.ID, "attempt": one.Attempt, "status": status})
	}
	return told
}

func key(one run) string { return fmt.Sprint(one.ID, " ", one.Attempt) }

func main() {
	secrets := os.Getenv("HURLBAT_SIGNING_SECRETS") + "," + os.Getenv("HURLBAT_SIGNING_SECRET")
	for _, secret := range strings.Fields(strings.ReplaceAll(secrets, ",", " ")) {
		webhook, err := standardwebhooks.NewWebhook(secret)
		if err != nil || !strings.HasPrefix(secret, "whsec_") || len(secret) < 38 {
			webhooks = nil
			break
		}
		webhooks = append(webhooks, webhook)
	}
	if webhooks == nil {
		log.Fatal("set HURLBAT_SIGNING_SECRET to the secret of this worker: whsec_ and the base64 of 24 to 64 bytes")
	}
	address := net.JoinHostPort(cmp.Or(os.Getenv("HOST"), "127.0.0.1"), cmp.Or(os.Getenv("PORT"), "9000"))
	server := &http.Server{Addr: address, Handler: http.HandlerFunc(handle), ReadHeaderTimeout: time.Minute}
	drained := make(chan struct{})
	stopped, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	context.AfterFunc(stopped, func() { // what runs may end; what comes goes to another instance, or waits for one
		patience, done := context.WithTimeout(context.Background(), 10*time.Second)
		defer done()
		server.Shutdown(patience)
		close(drained)
	})
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		log.Fatal(err)
	}
	<-drained
}
