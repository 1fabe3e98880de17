// A plain worker: it answers HTTP, checks signatures, and knows two headers. Its task writes a receipt into a file.
package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

type receipt struct {
	lock sync.Mutex // held while it is being written
	Path string     `json:"receipt"` // empty until then
}

var receipts sync.Map // by webhook-id, which is the run's; to outlive a restart, take a table with a unique key
var orders = regexp.MustCompile(`^[\w-]+$`)

func write(id string, body []byte) (int, any, string) {
	var message struct {
		Data struct {
			Runs [1]struct {
				Input struct {
					Order  string
					Amount float64
				}
			}
		}
	}
	err := json.Unmarshal(body, &message)
	input := message.Data.Runs[0].Input
	if err != nil || !orders.MatchString(input.Order) || input.Amount <= 0 {
		return http.StatusUnprocessableEntity, "order and amount are wanted", "hurlbat-retry: no"
	}
	found, _ := receipts.LoadOrStore(id, &receipt{})
	mine := found.(*receipt)
	if !mine.lock.TryLock() {
		return http.StatusServiceUnavailable, "still at it", "retry-after: 5" // it waits so long, uncharged
	}
	defer mine.lock.Unlock()
	if mine.Path == "" {
		path := input.Order + ".txt"
		if err := os.WriteFile(filepath.Join(os.Getenv("RECEIPTS"), path), []byte(fmt.Sprintln(input.Amount)), 0o644); err != nil {
			return http.StatusInternalServerError, err.Error(), ""
		}
		mine.Path = path // only after success: a failed one is to be tried again
	}
	return http.StatusOK, mine, ""
}

func main() {
	secret := os.Getenv("HURLBAT_SIGNING_SECRET")
	webhook, err := standardwebhooks.NewWebhook(secret)
	if err != nil || !strings.HasPrefix(secret, "whsec_") || len(secret) < 38 {
		log.Fatal("set HURLBAT_SIGNING_SECRET to the secret of this worker: whsec_ and the base64 of 24 to 64 bytes")
	}
	handler := func(w http.ResponseWriter, r *http.Request) {
		status, said, header := http.StatusRequestEntityTooLarge, any("only bodies of up to 16 MiB are taken"), ""
		if body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 16<<20)); err == nil {
			status, said = http.StatusUnauthorized, "the signature is missing, wrong or old"
			if webhook.Verify(body, r.Header) == nil {
				status, said, header = write(r.Header.Get("webhook-id"), body)
			}
		}
		if name, value, found := strings.Cut(header, ": "); found {
			w.Header().Set(name, value)
		}
		w.Header().Set("content-type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(said)
	}
	address := net.JoinHostPort(cmp.Or(os.Getenv("HOST"), "127.0.0.1"), cmp.Or(os.Getenv("PORT"), "9000"))
	server := &http.Server{Addr: address, Handler: http.HandlerFunc(handler), ReadHeaderTimeout: time.Minute}
	log.Fatal(server.ListenAndServe())
}
