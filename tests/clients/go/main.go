// Every operation with the client that openapi-generator generates. Prints a line of JSON for each.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"

	"example.com/clients/hurlbat"
)

var name = os.Getenv("CLIENT_NAME")

type result map[string]any

func tell(operation string, line result) {
	line["operation"] = operation
	text, err := json.Marshal(line)
	check(err)
	fmt.Println(string(text))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// problemOf returns what the server said where it refused.
func problemOf(err error) (hurlbat.Problem, bool) {
	var refusal *hurlbat.GenericOpenAPIError
	if !errors.As(err, &refusal) {
		return hurlbat.Problem{}, false
	}
	problem, ok := refusal.Model().(hurlbat.Problem)
	return problem, ok
}

func withToken(token string) context.Context {
	return context.WithValue(context.Background(), hurlbat.ContextAccessToken, token)
}

func main() {
	configuration := hurlbat.NewConfiguration()
	configuration.Servers = hurlbat.ServerConfigurations{{URL: os.Getenv("HURLBAT_URL")}}
	client := hurlbat.NewAPIClient(configuration)
	ctx := withToken(os.Getenv("HURLBAT_TOKEN"))

	auto := "auto"
	spec := hurlbat.NewWorkerSpec("greeter", os.Getenv("WORKER_URL"))
	spec.SetSecret(os.Getenv("WORKER_SECRET"))
	spec.SetSlots(10)
	spec.SetWindow(hurlbat.WindowSetting{String: &auto})
	spec.SetLabels(map[string]string{"language": name})
	worker, _, err := client.WorkersAPI.RegisterWorker(ctx).WorkerSpec(*spec).Execute()
	check(err)
	tell("register", result{"name": worker.Name, "state": worker.State, "language": worker.Labels["language"]})

	submission := hurlbat.NewSubmission("greet")
	submission.SetInput(map[string]any{"name": "Ada"})
	submission.SetIdempotencyKey(name)
	run, _, err := client.RunsAPI.SubmitRun(ctx).Submission(*submission).Execute()
	check(err)
	tell("submit", result{"id": run.Id, "task": run.Task, "input": run.Input})

	ended, _, err := client.RunsAPI.GetRun(ctx, run.Id).Wait(30).Execute()
	check(err)
	if ended.State != hurlbat.RUNSTATE_COMPLETED {
		log.Fatalf("the run is %s", ended.State)
	}
	tell("wait", result{"id": ended.Id, "state": ended.State, "output": ended.Output})

	var runs []hurlbat.Submission
	for _, person := range []string{"Grace", "Edsger", "Barbara", "Tony"} {
		one := hurlbat.NewSubmission("greet")
		one.SetInput(map[string]any{"name": person})
		runs = append(runs, *one)
	}
	bad := hurlbat.NewSubmission("greet")
	bad.SetIdempotencyTtl(60)
	bulk, _, err := client.RunsAPI.SubmitRuns(ctx).BulkSubmission(*hurlbat.NewBulkSubmission(append(runs, *bad))).Execute()
	check(err)
	ids, codes := []string{}, []string{}
	for _, outcome := range bulk.Results {
		if outcome.Run != nil {
			ids = append(ids, outcome.Run.Id)
		} else {
			codes = append(codes, outcome.Problem.Code)
		}
	}
	tell("bulk", result{"ids": ids, "codes": codes})

	published := hurlbat.NewEventSpec("user.joined")
	published.SetPayload(map[string]any{"name": "Alan"})
	event, _, err := client.EventsAPI.PublishEvent(ctx).EventSpec(*published).Execute()
	check(err)
	starts := [][]any{}
	for _, start := range event.Starts {
		starts = append(starts, []any{start.Task, start.Outcome})
	}
	tell("publish", result{"key": event.Key, "starts": starts})

	daily := hurlbat.NewScheduleSpec("greet")
	daily.SetName(name)
	daily.SetExpression("0 6 * * *")
	daily.SetTimezone("UTC")
	daily.SetOverlap(hurlbat.OVERLAPPOLICY_SKIP)
	schedule, _, err := client.SchedulesAPI.CreateSchedule(ctx).ScheduleSpec(*daily).Execute()
	check(err)
	next := schedule.GetNextAt()
	tell("schedule", result{"name": schedule.Name, "overlap": schedule.Overlap, "hour": next.UTC().Hour()})

	pages, found := 0, []string{}
	request := client.RunsAPI.ListRuns(ctx).Task("greet").Limit(2)
	for {
		page, _, err := request.Execute()
		check(err)
		pages++
		for _, one := range page.Items {
			found = append(found, one.Id)
		}
		cursor := page.GetNextCursor()
		if cursor == "" {
			break
		}
		request = request.Cursor(cursor)
	}
	tell("list", result{"pages": pages, "ids": found})

	delayed := hurlbat.NewSubmission("greet")
	delayed.SetDelay(3600)
	later, _, err := client.RunsAPI.SubmitRun(ctx).Submission(*delayed).Execute()
	check(err)
	why := hurlbat.NewCancellation()
	why.SetReason("not needed")
	cancelled, _, err := client.RunsAPI.CancelRun(ctx, later.Id).Cancellation(*why).Execute()
	check(err)
	tell("cancel", result{"state": cancelled.State, "by": cancelled.GetCancelledBy(), "reason": cancelled.GetReason()})

	for _, one := range []struct {
		operation string
		ctx       context.Context
		wanted    string
	}{
		{"problem", ctx, "01900000-0000-7000-8000-000000000000"},
		{"unauthorized", withToken("wrong"), run.Id},
	} {
		_, _, err := client.RunsAPI.GetRun(one.ctx, one.wanted).Execute()
		problem, ok := problemOf(err)
		if !ok {
			log.Fatalf("no problem, but %v", err)
		}
		tell(one.operation, result{"status": problem.Status, "code": problem.Code, "detail": problem.Detail})
	}
}
