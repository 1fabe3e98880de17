// Every operation with the client that openapi-generator generates. Prints a line of JSON for each.
package com.example;

import com.google.gson.Gson;
import io.hurlbat.client.ApiClient;
import io.hurlbat.client.ApiException;
import io.hurlbat.client.api.EventsApi;
import io.hurlbat.client.api.RunsApi;
import io.hurlbat.client.api.SchedulesApi;
import io.hurlbat.client.api.WorkersApi;
import io.hurlbat.client.auth.HttpBearerAuth;
import io.hurlbat.client.model.*;
import java.io.IOException;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;

public class Client {
    static final String NAME = System.getenv("CLIENT_NAME");

    static void tell(String operation, Map<String, ?> result) {
        Map<String, Object> line = new LinkedHashMap<>(Map.of("operation", operation));
        line.putAll(result);
        System.out.println(new Gson().toJson(line));
    }

    static ApiClient connect(String token) {
        ApiClient client = new ApiClient();
        client.setBasePath(System.getenv("HURLBAT_URL"));
        ((HttpBearerAuth) client.getAuthentication("ApiToken")).setBearerToken(token);
        client.setReadTimeout(90_000); // `wait` keeps a request open for up to a minute
        return client;
    }

    public static void main(String[] arguments) throws ApiException, IOException {
        ApiClient client = connect(System.getenv("HURLBAT_TOKEN"));
        RunsApi runs = new RunsApi(client);

        WorkerSpec spec = new WorkerSpec()
                .name("greeter")
                .url(System.getenv("WORKER_URL"))
                .secret(System.getenv("WORKER_SECRET"))
                .slots(10)
                .window(new WindowSetting("auto"))
                .labels(Map.of("language", NAME));
        Worker worker = new WorkersApi(client).registerWorker(spec);
        tell("register", Map.of(
                "name", worker.getName(), "state", worker.getState(), "language", worker.getLabels().get("language")));

        Submission submission =
                new Submission().task("greet").input(Map.of("name", "Ada")).idempotencyKey(NAME);
        Run run = runs.submitRun(submission, null);
        tell("submit", Map.of("id", run.getId(), "task", run.getTask(), "input", run.getInput()));

        Run ended = runs.getRun(run.getId(), 30.0, null);
        if (ended.getState() != RunState.COMPLETED) throw new IllegalStateException("the run is " + ended.getState());
        tell("wait", Map.of("id", ended.getId(), "state", ended.getState(), "output", ended.getOutput()));

        BulkSubmission several = new BulkSubmission();
        for (String person : List.of("Grace", "Edsger", "Barbara", "Tony")) {
            several.addRunsItem(new Submission().task("greet").input(Map.of("name", person)));
        }
        several.addRunsItem(new Submission().task("greet").idempotencyTtl(60.0));
        List<UUID> ids = new ArrayList<>();
        List<String> codes = new ArrayList<>();
        for (RunOutcome outcome : runs.submitRuns(several).getResults()) {
            if (outcome.getActualInstance() instanceof Run) ids.add(outcome.getRun().getId());
            else codes.add(outcome.getProblem().getCode());
        }
        tell("bulk", Map.of("ids", ids, "codes", codes));

        Event event = new EventsApi(client)
                .publishEvent(new EventSpec().key("user.joined").payload(Map.of("name", "Alan")));
        List<List<Object>> starts = new ArrayList<>();
        for (EventStart start : event.getStarts()) starts.add(List.of(start.getTask(), start.getOutcome()));
        tell("publish", Map.of("key", event.getKey(), "starts", starts));

        ScheduleSpec daily = new ScheduleSpec()
                .task("greet")
                .name(NAME)
                .expression("0 6 * * *")
                .timezone("UTC")
                .overlap(OverlapPolicy.SKIP);
        Schedule schedule = new SchedulesApi(client).createSchedule(daily);
        int hour = schedule.getNextAt().withOffsetSameInstant(ZoneOffset.UTC).getHour();
        tell("schedule", Map.of("name", schedule.getName(), "overlap", schedule.getOverlap(), "hour", hour));

        int pages = 0;
        List<UUID> found = new ArrayList<>();
        String cursor = null;
        do {
            RunPage page = runs.listRuns("greet", null, null, null, null, null, null, null, cursor, 2);
            for (Run one : page.getItems()) found.add(one.getId());
            pages++;
            cursor = page.getNextCursor();
        } while (cursor != null);
        tell("list", Map.of("pages", pages, "ids", found));

        Run later = runs.submitRun(new Submission().task("greet").delay(3600.0), null);
        Run cancelled = runs.cancelRun(later.getId(), new Cancellation().reason("not needed"));
        tell("cancel", Map.of(
                "state", cancelled.getState(), "by", cancelled.getCancelledBy(), "reason", cancelled.getReason()));

        refused("problem", runs, UUID.randomUUID());
        refused("unauthorized", new RunsApi(connect("wrong")), run.getId());
    }

    static void refused(String operation, RunsApi runs, UUID wanted) throws IOException {
        try {
            runs.getRun(wanted, null, null);
        } catch (ApiException refusal) {
            Problem problem = Problem.fromJson(refusal.getResponseBody());
            tell(operation, Map.of(
                    "status", problem.getStatus(), "code", problem.getCode(), "detail", problem.getDetail()));
        }
    }
}
