package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

type object = map[string]any

// A task gets its run's input, and a context that is done when the run is cancelled. It returns the output.
type task = func(ctx context.Context, input json.RawMessage) (json.RawMessage, error)

var tasks = map[string]task{
	"shout": typed(shout),
	// what `hurlbat conform` tests with
	"conform.echo":  typed(echo),
	"conform.sleep": typed(sleep),
	"conform.fail":  typed(fail),
}

// declared returns what the server is told of the tasks: their names and policies.
func declared() (list []object) {
	for _, name := range slices.Sorted(maps.Keys(tasks)) {
		list = append(list, object{"name": name, "retries": 3})
	}
	return list
}

// typed makes a task of a function that has types of its own, and an error of a panic, which would end the process.
func typed[Input, Output any](run func(context.Context, Input) (Output, error)) task {
	return func(ctx context.Context, raw json.RawMessage) (_ json.RawMessage, err error) {
		defer func() {
			if problem := recover(); problem != nil {
				err = fmt.Errorf("panic: %v", problem)
			}
		}()
		var input Input
		if err := json.Unmarshal(raw, &input); err != nil {
			return nil, err
		}
		output, err := run(ctx, input)
		if err != nil {
			return nil, err
		}
		return json.Marshal(output)
	}
}

// A failure is an error that also says whether to try again, and after how many seconds.
type failure struct {
	Message    string
	Retryable  bool
	RetryAfter any `json:"retry_after"`
}

func (f failure) Error() string { return f.Message }

func shout(_ context.Context, input struct{ Text string }) (string, error) {
	return strings.ToUpper(input.Text), nil
}

func echo(_ context.Context, input json.RawMessage) (json.RawMessage, error) { return input, nil }

func sleep(ctx context.Context, input struct{ Seconds float64 }) (object, error) {
	select {
	case <-time.After(time.Duration(input.Seconds * float64(time.Second))):
		return object{"slept": input.Seconds}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func fail(_ context.Context, input failure) (any, error) { return nil, input }
