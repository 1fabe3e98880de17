package main

import (
	"context"
	"encoding/json"
	"errors"
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

// typed makes a task of a function that has types of its own.
func typed[Input, Output any](run func(context.Context, Input) (Output, error)) task {
	return func(ctx context.Context, raw json.RawMessage) (json.RawMessage, error) {
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

// perform runs a task and returns its run's result as it is told.
func perform(ctx context.Context, name string, input json.RawMessage) (result object) {
	defer func() {
		if problem := recover(); problem != nil { // which would end the process
			result = failed(fmt.Errorf("panic: %v", problem))
		}
	}()
	if tasks[name] == nil {
		error := object{"type": "unknown_task", "message": name + " is not served here"}
		return object{"state": "failed", "error": error}
	}
	output, err := tasks[name](ctx, input)
	if len(output) > 1<<20 {
		err = failure{Message: "an output of more than 1 MiB"}
	}
	if err != nil {
		return failed(err)
	}
	return object{"state": "completed", "output": output}
}

func failed(err error) object {
	said := failure{Retryable: true}
	errors.As(err, &said)
	error := object{"type": fmt.Sprintf("%T", err), "message": err.Error()}
	return object{"state": "failed", "error": error, "retryable": said.Retryable, "retry_after": said.RetryAfter}
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
