package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"paythread/checkout"
	"paythread/conversations"
)

// checkStatus is what a check came to.
type checkStatus string

// The statuses.
const (
	statusOK   checkStatus = "ok"
	statusWarn checkStatus = "warn" // it runs, and something is less safe than it could be
	statusFail checkStatus = "fail"
)

// finding is the result of one check.
type finding struct {
	status checkStatus
	found  string // what is there; never holds a secret
	mend   string // what to do about it; empty where all is well
}

// doctorCheck is one row of the doctor's table.
type doctorCheck struct {
	name string
	run  func(context.Context) finding
}

// checkWithin bounds each check, so that a server that does not answer is told
// as that.
const checkWithin = 10 * time.Second

// redisInspector looks at Redis and changes nothing.
type redisInspector interface {
	Inspect(context.Context) (conversations.Inspection, error)
}

// inspectedServers are the servers that the options name.
type inspectedServers conversations.Options

// Inspect looks at them without opening a store: the doctor writes nothing.
func (s inspectedServers) Inspect(ctx context.Context) (conversations.Inspection, error) {
	return conversations.InspectServers(ctx, conversations.Options(s))
}

// SenderState tells what they hold of a sender, in the same way.
func (s inspectedServers) SenderState(ctx context.Context, senderID string) (conversations.SenderState, error) {
	return conversations.InspectSender(ctx, conversations.Options(s), senderID)
}

func doctorCommand(flags *flag.FlagSet) action {
	load := configFlag(flags)
	local := flags.Bool("local", false, "ask no messaging company and no payment platform, for a check before each start that must not depend on them")
	asJSON := flags.Bool("json", false, "print the findings as JSON, for programs")
	return func(ctx context.Context, p process) error {
		cfg, err := load(p)
		if err != nil {
			return err
		}
		adapter, platform := calling(outwardClient()), callingPlatform(outwardClient())
		if *local {
			adapter, platform = nil, nil
		}
		servers, err := cfg.Redis.options()
		if err != nil {
			return err
		}
		exams := slices.Concat(merchantExams(cfg, platform, inspectedServers(servers)), senderExams(cfg, adapter, inspectedServers(servers)))
		r := &report{w: p.stdout, count: map[checkStatus]int{}}
		if *asJSON {
			r.w = io.Discard
		}
		ok := r.examine(ctx, doctorChecks(cfg, inspectedServers(servers)), exams)
		if *asJSON {
			text, err := json.MarshalIndent(map[string]any{"ok": ok, "checks": r.told}, "", "  ")
			if err = errors.Join(err, write(p.stdout, append(text, '\n'))); err != nil {
				return err
			}
		}
		if !ok {
			return errReported
		}
		return nil
	}
}

// doctorChecks lists all checks in the order in which they are made.
func doctorChecks(cfg *Config, redis redisInspector) []doctorCheck {
	checks := []doctorCheck{
		{"configuration", func(context.Context) finding {
			return finding{statusOK, countOf(len(cfg.Merchants), "merchant") + ", no problems", ""}
		}},
		{"link keys", func(context.Context) finding { return checkLinkKeys(cfg.LinkKeys) }},
		{"client addresses", func(context.Context) finding { return checkProxies(cfg) }},
	}
	return append(checks, redisChecks(cfg, redis)...)
}

// examine runs the checks in turn and prints each as it ends, then what was
// found of each merchant and sender. It returns whether nothing failed.
func (r *report) examine(ctx context.Context, checks []doctorCheck, exams []exam) bool {
	found := takeExams(ctx, exams) // begins now, and takes longer than the checks
	width := 0
	for _, c := range checks {
		width = max(width, len(c.name))
	}
	for _, c := range checks {
		bounded, cancel := context.WithTimeout(ctx, checkWithin)
		f := c.run(bounded)
		cancel()
		r.line(c.name, width, f)
	}
	for i, e := range exams {
		r.exam(e.heading, <-found[i])
	}
	return r.sum()
}

// report prints findings, counts them, and keeps them.
type report struct {
	w     io.Writer
	count map[checkStatus]int
	about string // the merchant or sender that is looked at
	told  []toldFinding
}

// toldFinding is a finding as programs read it.
type toldFinding struct {
	About  string      `json:"about,omitempty"`
	Check  string      `json:"check"`
	Status checkStatus `json:"status"`
	Found  string      `json:"found"`
	Mend   string      `json:"mend,omitempty"`
}

// line prints one finding, its name filled up to width.
func (r *report) line(name string, width int, f finding) {
	r.count[f.status]++
	r.told = append(r.told, toldFinding{r.about, name, f.status, f.found, f.mend})
	r.printf("%-4s  %-*s  %s\n", f.status, width, name, f.found)
	if f.mend != "" {
		what := "to mend"
		if f.status == statusOK {
			what = "by hand" // nothing is broken, and only a person can see more
		}
		r.printf("%*s  %s: %s\n", width+6, "", what, f.mend)
	}
}

// exam prints what was found under a heading of its own.
func (r *report) exam(heading string, found []namedFinding) {
	r.about = heading
	r.printf("\n%s\n", heading)
	width := 0
	for _, f := range found {
		width = max(width, len(f.name))
	}
	for _, f := range found {
		r.line(f.name, width, f.finding)
	}
}

// sum prints the counts and returns whether nothing failed.
func (r *report) sum() bool {
	all := r.count[statusOK] + r.count[statusWarn] + r.count[statusFail]
	r.printf("\n%s: %d ok, %s, %d failed\n", countOf(all, "check"), r.count[statusOK], countOf(r.count[statusWarn], "warning"), r.count[statusFail])
	return r.count[statusFail] == 0
}

// printf writes to the person. A terminal that is gone is nobody to tell.
func (r *report) printf(format string, values ...any) { _, _ = fmt.Fprintf(r.w, format, values...) }

// checkProxies looks whether limits that are counted by address can tell
// customers apart.
func checkProxies(cfg *Config) finding {
	host, _, err := net.SplitHostPort(cfg.Listen)
	switch {
	case len(cfg.TrustedProxies) > 0:
		return finding{statusOK, "X-Forwarded-For is believed from " + countOf(len(cfg.TrustedProxies), "network"), ""}
	case err == nil && isLoopback(host):
		return finding{statusWarn, "trusted_proxies is empty, and whoever calls on " + cfg.Listen + " is on this machine: behind a proxy all customers have its address",
			"set trusted_proxies to the proxy's address: card_testing.address_tries counts by it"}
	}
	return finding{statusWarn, "trusted_proxies is empty: behind a proxy all customers have its address, and share the tries of card_testing.address_tries",
		"set trusted_proxies to the proxies' networks; nothing, if customers reach " + cfg.Listen + " directly"}
}

func checkLinkKeys(c LinkKeysConfig) finding {
	keys, err := checkout.LoadKeys(c.Files())
	if err != nil {
		return finding{statusFail, err.Error(), "make keys with \"paythread keys new --dir DIR\", and let link_keys name them"}
	}
	if problems := keys.Problems(); len(problems) > 0 {
		return finding{statusWarn, strings.Join(problems, "; "), "change the files as said"}
	}
	return finding{statusOK, "signing with key " + keys.KeyID(), ""}
}

// redisChecks makes the checks of Redis. The first one asks the servers, the
// others read its answer.
func redisChecks(cfg *Config, redis redisInspector) []doctorCheck {
	var seen *conversations.Inspection
	checks := []doctorCheck{{"redis", func(ctx context.Context) finding {
		i, err := redis.Inspect(ctx)
		if err != nil {
			return finding{statusFail, oneLine(err), mendRedis(err, cfg.Redis)}
		}
		seen = &i
		return finding{statusOK, "answers, " + string(cfg.Redis.Mode), ""}
	}}}
	for _, row := range []struct {
		name string
		look func(conversations.Inspection, *Config) finding
	}{
		{"redis mode", lookAtMode},
		{"redis version", lookAtVersion},
		{"redis commands", lookAtDenied},
		{"redis persistence", lookAtPersistence},
		{"redis eviction", lookAtEviction},
		{"redis replicas", lookAtReplicas},
		{"redis slots", lookAtSlots},
		{"redis clock", lookAtClock},
	} {
		checks = append(checks, doctorCheck{row.name, func(context.Context) finding {
			if seen == nil {
				return finding{statusWarn, "not looked at, because Redis does not answer", ""}
			}
			return row.look(*seen, cfg)
		}})
	}
	return checks
}

// redisMends say what to do about what a server answers, by the words in it.
var redisMends = []struct{ words, mend string }{
	{"NOAUTH", "give redis.password, or put it into redis.url: the server wants one"},
	{"WRONGPASS", "see that redis.username and redis.password are those of a user of the server"},
	{"NOPERM", "let the server's access list give our user the commands that are used, and the keys that begin with redis.prefix"},
	{"DB index is out of range", "set redis.database, or the number at the end of redis.url, to one that the server has"},
	{"cluster support disabled", "set redis.mode to single or sentinel, with one address"},
	{"first record does not look like a TLS handshake", "switch redis.tls.enabled off, or begin redis.url with redis://: the server speaks no TLS there"},
	{"certificate", "let redis.tls.ca_file name the authority of the server's certificate, and redis.tls.server_name the name in it"},
}

// mendRedis says what to do about a Redis that does not answer as it should.
func mendRedis(err error, c RedisConfig) string {
	for _, row := range redisMends {
		if strings.Contains(err.Error(), row.words) {
			return row.mend
		}
	}
	tls := "without TLS, which redis.tls.enabled or rediss:// switches on"
	if c.TLS.Enabled {
		tls = "with TLS"
	}
	return "see that Redis runs at " + strings.Join(c.Addresses, ", ") + " and can be reached from here " + tls
}

// grave is the status of what loses money records: a failure where money is
// real, a warning where it is not.
func grave(cfg *Config) checkStatus {
	for _, m := range cfg.Merchants {
		if !m.Sandbox {
			return statusFail
		}
	}
	return statusWarn
}

func lookAtMode(i conversations.Inspection, cfg *Config) finding {
	clustered := cfg.Redis.Mode == RedisCluster
	switch {
	case i.Mode == "":
		return finding{statusWarn, "the server does not tell", ""}
	case i.Mode == "cluster" && !clustered:
		return finding{statusFail, "the server is part of a Cluster, the configuration says " + string(cfg.Redis.Mode), "set redis.mode to cluster"}
	case i.Mode != "cluster" && clustered:
		return finding{statusFail, "the server is not part of a Cluster, the configuration says that it is", "set redis.mode to single or sentinel, with one address"}
	}
	return finding{statusOK, i.Mode, ""}
}

// leastRedis is the first version with all the commands that are used.
const leastRedis = "6.2"

func lookAtVersion(i conversations.Inspection, _ *Config) finding {
	switch {
	case i.Version == "":
		return finding{statusWarn, "the server does not tell", "see that it is " + leastRedis + " or newer"}
	case conversations.CompareVersions(i.Version, leastRedis) < 0:
		return finding{statusFail, i.Version, "use " + leastRedis + " or newer"}
	}
	return finding{statusOK, i.Version, ""}
}

func lookAtDenied(i conversations.Inspection, _ *Config) finding {
	if len(i.Denied) == 0 {
		return finding{statusOK, "all that we look with are allowed", ""}
	}
	return finding{statusWarn, "refused: " + strings.Join(i.Denied, ", ") + ", as managed services do; some of the following may not be known",
		"look in the service's own console for persistence, eviction and replicas"}
}

// mendPersistence names the order, because the other one loses everything: Redis
// 7 that is started with appendonly yes and has no append-only file yet looks at
// no snapshot, and begins empty.
const mendPersistence = "give the running server CONFIG SET appendonly yes, wait until INFO persistence says aof_rewrite_in_progress:0, and only then " +
	"write the same into its redis.conf: a server that is restarted with it first ignores its snapshot and begins empty"

func lookAtPersistence(i conversations.Inspection, cfg *Config) finding {
	switch {
	case i.AppendOnly == nil:
		return finding{statusWarn, "the server does not tell whether it keeps an append-only file", "see that a restart loses nothing"}
	case !*i.AppendOnly && len(i.Denied) > 0:
		return finding{statusWarn, "no append-only file, and the service does not let us see how else it keeps its data", "see that a restart loses nothing"}
	case !*i.AppendOnly:
		return finding{grave(cfg), "no append-only file: a restart loses what happened since the last snapshot", mendPersistence}
	}
	return finding{statusOK, "append-only file", ""}
}

func lookAtEviction(i conversations.Inspection, cfg *Config) finding {
	switch i.MaxMemoryPolicy {
	case "":
		return finding{statusWarn, "the server does not tell its maxmemory-policy", "see that it is noeviction"}
	case "noeviction":
		return finding{statusOK, "noeviction", ""}
	}
	return finding{grave(cfg), i.MaxMemoryPolicy + ": a full server throws records away", "give the running server CONFIG SET maxmemory-policy noeviction, and write the same into its redis.conf"}
}

func lookAtReplicas(i conversations.Inspection, cfg *Config) finding {
	switch {
	case i.Replicas == 0 && slices.Contains(i.Denied, "INFO"):
		return finding{statusWarn, "the server does not tell how many there are", fmt.Sprintf("see that each master has at least %d", max(1, cfg.Redis.WaitReplicas))}
	case i.Replicas < cfg.Redis.WaitReplicas:
		return finding{statusFail, fmt.Sprintf("a master has %d, and redis.wait_replicas is %d: no charge would be made", i.Replicas, cfg.Redis.WaitReplicas),
			"add replicas, or lower redis.wait_replicas"}
	case i.Replicas == 0:
		return finding{statusWarn, "none: if the server is lost, so is what it held", "add a replica to each master"}
	}
	return finding{statusOK, fmt.Sprintf("at least %d for each master", i.Replicas), ""}
}

func lookAtSlots(i conversations.Inspection, cfg *Config) finding {
	switch {
	case cfg.Redis.Mode != RedisCluster:
		return finding{statusOK, "no Cluster", ""}
	case i.SlotsCovered == nil:
		return finding{statusWarn, "the Cluster does not tell whether all slots are served", "look at CLUSTER INFO"}
	case !*i.SlotsCovered:
		return finding{statusFail, "some slots are not served: part of all contacts cannot be reached", "see CLUSTER INFO, and bring the masters back"}
	}
	return finding{statusOK, "all served", ""}
}

// The offsets from which the clocks are worth a word. Windows and timers go by
// Redis's clock, so a difference does no harm there; the ends of links,
// tokens and signatures go by ours.
const (
	clockWarn = 2 * time.Second
	clockFail = time.Minute
)

func lookAtClock(i conversations.Inspection, _ *Config) finding {
	off := i.ClockOffset.Round(time.Millisecond)
	words := fmt.Sprintf("%s from ours", off.Abs())
	switch {
	case off > 0:
		words = fmt.Sprintf("%s ahead of ours", off)
	case off < 0:
		words = fmt.Sprintf("%s behind ours", -off)
	}
	mend := "let both machines set their clocks by NTP"
	switch {
	case off.Abs() >= clockFail:
		return finding{statusFail, words, mend}
	case off.Abs() >= clockWarn:
		return finding{statusWarn, words, mend}
	}
	return finding{statusOK, words, ""}
}
