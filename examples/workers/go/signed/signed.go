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

// Serve gives each message to handle, until the process is told to stop. All answers have the headers.
func Serve[Message any](handle func(http.ResponseWriter, *http.Request, Message), headers map[string]string) {
	webhooks := webhooks()
	handler := func(w http.ResponseWriter, r *http.Request) {
		for name, value := range headers {
			w.Header().Set(name, value)
		}
		var message Message
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 16<<20))
		accepts := func(webhook *standardwebhooks.Webhook) bool { return webhook.Verify(body, r.Header) == nil }
		switch {
		case r.Method != http.MethodPost:
			Answer(w, http.StatusMethodNotAllowed, "POST is what is served here")
		case err != nil:
			Answer(w, http.StatusRequestEntityTooLarge, "only bodies of up to 16 MiB are taken")
		case !slices.ContainsFunc(webhooks, accepts):
			Answer(w, http.StatusUnauthorized, "the signature is missing, wrong or old")
		case json.Unmarshal(body, &message) != nil:
			Answer(w, http.StatusBadRequest, "this is no message that is known here")
		default:
			handle(w, r, message)
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

// Answer sends JSON.
func Answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("content-type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

// webhooks returns a verifier for each secret: while one rotates, any of them may have signed.
func webhooks() (list []*standardwebhooks.Webhook) {
	secrets := os.Getenv("HURLBAT_SIGNING_SECRETS") + "," + os.Getenv("HURLBAT_SIGNING_SECRET")
	for _, secret := range strings.Fields(strings.ReplaceAll(secrets, ",", " ")) {
		webhook, err := standardwebhooks.NewWebhook(secret)
		if err != nil || !strings.HasPrefix(secret, "whsec_") || len(secret) < 38 {
			list = nil
			break
		}
		list = append(list, webhook)
	}
	if list == nil {
		log.Fatal("set HURLBAT_SIGNING_SECRET to the secret of this worker: whsec_ and the base64 of 24 to 64 bytes")
	}
	return list
}
