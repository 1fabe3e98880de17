// Package signed has what both workers need: a server that lets in what is signed, and nothing else.
package signed

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const wanted = "set HURLBAT_SIGNING_SECRET to the secret of this worker: whsec_ and the base64 of 24 to 64 bytes"

// A Message is what the server sends. A plain worker gets deliveries of one run.
type Message struct {
	Type string
	Data struct {
		Heartbeat float64
		Runs      []Run
	}
}

// A Run as it is delivered. The message that cancels it has its Attempt alone.
type Run struct {
	Attempt
	Task  string
	Input json.RawMessage
}

// An Attempt is what answers name.
type Attempt struct {
	RunID  string `json:"run_id"` // the same on every attempt
	Number int    `json:"attempt"`
}

// Serve gives each message to handle, until the process is told to stop. All answers have the headers.
func Serve(handle func(http.ResponseWriter, Message), headers map[string]string) {
	verifiers := verifiers()
	handler := func(w http.ResponseWriter, r *http.Request) {
		for name, value := range headers {
			w.Header().Set(name, value)
		}
		var message Message
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 16<<20))
		accepts := func(one *standardwebhooks.Webhook) bool { return one.Verify(body, r.Header) == nil }
		switch {
		case r.Method != http.MethodPost:
			http.Error(w, "POST is what is served here", http.StatusMethodNotAllowed)
		case err != nil:
			http.Error(w, "only bodies of up to 16 MiB are taken", http.StatusRequestEntityTooLarge)
		case !slices.ContainsFunc(verifiers, accepts):
			http.Error(w, "the signature is missing, wrong or old", http.StatusUnauthorized)
		case json.Unmarshal(body, &message) != nil:
			http.Error(w, "this is no message that is known here", http.StatusBadRequest)
		default:
			handle(w, message)
		}
	}
	address := net.JoinHostPort(cmp.Or(os.Getenv("HOST"), "127.0.0.1"), cmp.Or(os.Getenv("PORT"), "9000"))
	server := &http.Server{Addr: address, Handler: http.HandlerFunc(handler), ReadHeaderTimeout: time.Minute}
	go func() {
		if err := server.ListenAndServe(); err != http.ErrServerClosed {
			log.Fatal(err)
		}
	}()
	stopped, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	<-stopped.Done() // what runs may end; what comes goes to another instance, or waits for one
	patience, done := context.WithTimeout(context.Background(), 10*time.Second)
	defer done()
	server.Shutdown(patience)
}

// Answer sends JSON with the status 200.
func Answer(w http.ResponseWriter, body any) {
	w.Header().Set("content-type", "application/json")
	json.NewEncoder(w).Encode(body)
}

// verifiers returns one for each secret: while one rotates, any of them may have signed.
func verifiers() (list []*standardwebhooks.Webhook) {
	secrets := os.Getenv("HURLBAT_SIGNING_SECRETS") + "," + os.Getenv("HURLBAT_SIGNING_SECRET")
	for _, secret := range strings.Fields(strings.ReplaceAll(secrets, ",", " ")) {
		verifier, err := standardwebhooks.NewWebhook(secret)
		if err != nil || !strings.HasPrefix(secret, "whsec_") || len(secret) < 38 {
			log.Fatal(wanted)
		}
		list = append(list, verifier)
	}
	if list == nil {
		log.Fatal(wanted)
	}
	return list
}
