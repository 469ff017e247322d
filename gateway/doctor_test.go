package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"paythread/checkout"
	"paythread/conversations"
	"paythread/conversations/redistest"
)

// said is a Redis that tells what the test wants.
type said struct {
	conversations.Inspection
	err error
}

func (s said) Inspect(context.Context) (conversations.Inspection, error) { return s.Inspection, s.err }

func yes() *bool { v := true; return &v }
func no() *bool  { v := false; return &v }

func healthy() conversations.Inspection {
	return conversations.Inspection{Version: "7.2.4", Mode: "standalone", AppendOnly: yes(), MaxMemoryPolicy: "noeviction", Replicas: 1}
}

func TestDoctorRedis(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change     func(*conversations.Inspection)
		config     []string // changes of the example
		check      string
		want       checkStatus
		inFound    string
		production checkStatus // where it differs
	}{
		"healthy":             {func(*conversations.Inspection) {}, nil, "", statusOK, "", ""},
		"old":                 {func(i *conversations.Inspection) { i.Version = "6.0.16" }, nil, "redis version", statusFail, "6.0.16", ""},
		"old enough":          {func(i *conversations.Inspection) { i.Version = "6.2.0" }, nil, "", statusOK, "", ""},
		"version not told":    {func(i *conversations.Inspection) { i.Version = "" }, nil, "redis version", statusWarn, "does not tell", ""},
		"forgets":             {func(i *conversations.Inspection) { i.AppendOnly = no() }, nil, "redis persistence", statusWarn, "restart loses", statusFail},
		"forgets, managed":    {func(i *conversations.Inspection) { i.AppendOnly, i.Denied = no(), []string{"CONFIG"} }, nil, "redis persistence", statusWarn, "service", ""},
		"persistence unknown": {func(i *conversations.Inspection) { i.AppendOnly = nil }, nil, "redis persistence", statusWarn, "does not tell", ""},
		"evicts":              {func(i *conversations.Inspection) { i.MaxMemoryPolicy = "allkeys-lru" }, nil, "redis eviction", statusWarn, "allkeys-lru", statusFail},
		"eviction unknown":    {func(i *conversations.Inspection) { i.MaxMemoryPolicy = "" }, nil, "redis eviction", statusWarn, "does not tell", ""},
		"alone":               {func(i *conversations.Inspection) { i.Replicas = 0 }, nil, "redis replicas", statusWarn, "none", ""},
		"replicas not told":   {func(i *conversations.Inspection) { i.Replicas, i.Denied = 0, []string{"CONFIG", "INFO"} }, []string{"wait_replicas: 0", "wait_replicas: 1"}, "redis replicas", statusWarn, "does not tell", ""},
		"too few replicas":    {func(*conversations.Inspection) {}, []string{"wait_replicas: 0", "wait_replicas: 2"}, "redis replicas", statusFail, "wait_replicas is 2", ""},
		"denied":              {func(i *conversations.Inspection) { i.Denied = []string{"CONFIG"} }, nil, "redis commands", statusWarn, "CONFIG", ""},
		"clock ahead":         {func(i *conversations.Inspection) { i.ClockOffset = 3 * time.Second }, nil, "redis clock", statusWarn, "3s ahead", ""},
		"clock far behind":    {func(i *conversations.Inspection) { i.ClockOffset = -2 * time.Minute }, nil, "redis clock", statusFail, "2m0s behind", ""},
		"unexpected cluster":  {func(i *conversations.Inspection) { i.Mode = "cluster" }, nil, "redis mode", statusFail, "part of a Cluster", ""},
		"expected cluster":    {func(*conversations.Inspection) {}, []string{"mode: auto", "mode: cluster"}, "redis mode", statusFail, "not part of a Cluster", ""},
		"mode not told":       {func(i *conversations.Inspection) { i.Mode = "" }, nil, "redis mode", statusWarn, "does not tell", ""},
		"slots missing": {func(i *conversations.Inspection) { i.Mode, i.SlotsCovered = "cluster", no() },
			[]string{"mode: auto", "mode: cluster"}, "redis slots", statusFail, "not served", ""},
		"slots covered": {func(i *conversations.Inspection) { i.Mode, i.SlotsCovered = "cluster", yes() },
			[]string{"mode: auto", "mode: cluster"}, "", statusOK, "", ""},
		"slots not told": {func(i *conversations.Inspection) { i.Mode = "cluster" },
			[]string{"mode: auto", "mode: cluster"}, "redis slots", statusWarn, "does not tell", ""},
	} {
		for environment, want := range map[string]checkStatus{"sandbox": tt.want, "production": tt.production} {
			t.Run(name+" "+environment, func(t *testing.T) {
				t.Parallel()
				if want == "" {
					want = tt.want
				}
				cfg := base(t, tt.config...)
				cfg.Merchants[0].Sandbox = environment == "sandbox"
				i := healthy()
				tt.change(&i)
				for _, c := range redisChecks(cfg, said{Inspection: i}) {
					f := c.run(t.Context())
					if c.name != tt.check {
						if tt.check == "" && f.status != statusOK {
							t.Errorf("%s = %s: %s, want ok", c.name, f.status, f.found)
						}
						continue
					}
					if f.status != want || !strings.Contains(f.found, tt.inFound) {
						t.Errorf("%s = %s: %s, want %s with %q", c.name, f.status, f.found, want, tt.inFound)
					}
				}
			})
		}
	}
}

func TestDoctorRedisDown(t *testing.T) {
	t.Parallel()
	checks := redisChecks(base(t), said{err: errors.New("connection refused")})
	for i, c := range checks {
		f := c.run(t.Context())
		if want := map[bool]checkStatus{true: statusFail, false: statusWarn}[i == 0]; f.status != want {
			t.Errorf("%s = %s: %s, want %s", c.name, f.status, f.found, want)
		}
	}
	for said, want := range map[string]string{
		"connection refused":                                         "without TLS",
		"NOAUTH Authentication required.":                            "redis.password",
		"WRONGPASS invalid username-password":                        "redis.username",
		"ERR DB index is out of range":                               "redis.database",
		"ERR This instance has cluster support disabled":             "redis.mode",
		"tls: first record does not look like a TLS handshake":       "redis.tls.enabled",
		"x509: certificate signed by unknown authority":              "redis.tls.ca_file",
		"NOPERM User x has no permissions to run the 'time' command": "access list",
	} {
		if mend := mendRedis(errors.New(said), base(t).Redis); !strings.Contains(mend, want) {
			t.Errorf("%s: %q, want %q in it", said, mend, want)
		}
	}
}

// examine looks as the command does.
func examine(ctx context.Context, w io.Writer, checks []doctorCheck, exams []exam) bool {
	return (&report{w: w, count: map[checkStatus]int{}}).examine(ctx, checks, exams)
}

// TestDoctorTellsPrograms: --json has what is printed, and the same exit code.
func TestDoctorTellsPrograms(t *testing.T) {
	t.Parallel()
	env := []string{"PAYTHREAD_REDIS_URL=redis://127.0.0.1:1"} // nobody listens there
	file := exampleFile(t)
	code, out, errs := execute(t, env, "doctor", "--local", "--json", "--config", file)
	var told struct {
		OK     bool
		Checks []toldFinding
	}
	if err := json.Unmarshal([]byte(out), &told); err != nil || code != exitFailed || told.OK || errs != "" {
		t.Fatalf("doctor = %d, %v\n%s%s", code, err, out, errs)
	}
	_, text, _ := execute(t, env, "doctor", "--local", "--config", file)
	abouts := map[string]bool{}
	for _, f := range told.Checks {
		abouts[f.About] = true
		if !strings.Contains(text, f.Found) || !strings.Contains(text, f.Mend) || !strings.Contains(text, f.About) {
			t.Errorf("%+v is not what is printed", f)
		}
	}
	if len(told.Checks) < 15 || len(abouts) != 4 {
		t.Errorf("%d findings about %v", len(told.Checks), abouts)
	}
}

func TestDoctorReport(t *testing.T) {
	t.Parallel()
	result := func(f finding) func(context.Context) finding { return func(context.Context) finding { return f } }
	var out strings.Builder
	ok := examine(t.Context(), &out, []doctorCheck{
		{"a", result(finding{statusOK, "fine", ""})},
		{"longer", result(finding{statusWarn, "so so", "do this"})},
		{"b", result(finding{statusOK, "not told", "look there"})},
	}, nil)
	want := "ok    a       fine\n" +
		"warn  longer  so so\n" +
		"              to mend: do this\n" +
		"ok    b       not told\n" +
		"              by hand: look there\n" +
		"\n3 checks: 2 ok, 1 warning, 0 failed\n"
	if out.String() != want || !ok {
		t.Errorf("examine = %t and prints\n%s\nwant true and\n%s", ok, out.String(), want)
	}
	out.Reset()
	if examine(t.Context(), &out, []doctorCheck{{"a", result(finding{statusFail, "broken", ""})}}, nil) {
		t.Error("a failed check does not fail the examination")
	}
}

func TestDoctorLinkKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if f := checkLinkKeys(LinkKeysConfig{Dir: dir}); f.status != statusFail || f.mend == "" {
		t.Errorf("without keys = %+v, want fail and how to mend it", f)
	}
	if _, err := checkout.NewKeyFile(filepath.Join(dir, checkout.CurrentKeyFile)); err != nil {
		t.Fatal(err)
	}
	if f := checkLinkKeys(LinkKeysConfig{Dir: dir}); f.status != statusOK {
		t.Errorf("with a key = %+v, want ok", f)
	}
}

// TestDoctorRealRedis runs the whole command on a real server.
func TestDoctorRealRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	dir := t.TempDir()
	if _, err := checkout.NewKeyFile(filepath.Join(dir, checkout.CurrentKeyFile)); err != nil {
		t.Fatal(err)
	}
	env := []string{"PAYTHREAD_REDIS_URL=" + server.URL(), "PAYTHREAD_LINK_KEYS_DIR=" + dir}
	code, out, errs := execute(t, env, "doctor", "--config", exampleFile(t))
	if code != exitOK || !strings.Contains(out, "ok    redis version") || !strings.Contains(out, "warn  redis replicas") || errs != "" {
		t.Errorf("doctor = %d\n%s%s", code, out, errs)
	}
	if n, err := server.Client(t).DBSize(t.Context()).Result(); err != nil || n != 0 {
		t.Errorf("the doctor left %d keys, %v", n, err)
	}

	server.Kill()
	code, out, _ = execute(t, env, "doctor", "--config", exampleFile(t))
	if code != exitFailed || !strings.Contains(out, "fail  redis ") {
		t.Errorf("doctor without Redis = %d\n%s", code, out)
	}
}
