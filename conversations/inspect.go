package conversations

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// InspectServers looks at the servers that the options name, through a client
// of its own. It opens no store and writes nothing, so that it can be asked
// before the first start.
func InspectServers(ctx context.Context, o Options) (Inspection, error) {
	logDriver(o.Log)
	client := redis.NewUniversalClient(o.universal(inspectPool))
	seen, err := Inspect(ctx, client)
	return seen, errors.Join(err, client.Close())
}

// InspectSender returns what is known of a sender, through a client of its own.
// Like InspectServers it opens no store and writes nothing.
func InspectSender(ctx context.Context, o Options, senderID string) (SenderState, error) {
	logDriver(o.Log)
	o = o.withDefaults()
	s := &Store{rdb: redis.NewUniversalClient(o.universal(inspectPool)), keys: newKeys(o.Prefix, o.Partitions), o: o}
	state, err := s.SenderState(ctx, senderID)
	return state, errors.Join(err, s.rdb.Close())
}

// InspectCallbacks returns a merchant's callback endpoints, through a client of
// its own. Like InspectServers it opens no store and writes nothing.
func InspectCallbacks(ctx context.Context, o Options, merchantID string) ([]CallbackEndpoint, error) {
	logDriver(o.Log)
	o = o.withDefaults()
	s := &Store{rdb: redis.NewUniversalClient(o.universal(inspectPool)), keys: newKeys(o.Prefix, o.Partitions), o: o}
	endpoints, err := NewCallbacks(s, CallbackOptions{}).Endpoints(ctx, merchantID)
	return endpoints, errors.Join(err, s.rdb.Close())
}

// inspectPool is enough for one caller.
const inspectPool = 2

// Inspection is what the servers tell about themselves. Of several masters the
// one that is worst off counts.
type Inspection struct {
	Version         string // lowest; empty where it is not told
	Mode            string // standalone or cluster, as the servers say
	AppendOnly      *bool  // nil: not told
	MaxMemoryPolicy string // the first that is not noeviction; empty: not told
	Replicas        int    // connected to the master that has the fewest
	SlotsCovered    *bool  // nil: no Cluster
	// ClockOffset is Redis's clock less ours, of the master that is furthest off.
	ClockOffset time.Duration
	Denied      []string // commands that were refused, as managed services do
}

// Inspect asks every master. An error means that one could not be reached; a
// command that a server refuses is noted in Denied.
func Inspect(ctx context.Context, client redis.UniversalClient) (Inspection, error) {
	cluster, ok := client.(*redis.ClusterClient)
	if !ok {
		return inspectServer(ctx, client)
	}
	var mu sync.Mutex
	var all []Inspection
	err := cluster.ForEachMaster(ctx, func(ctx context.Context, master *redis.Client) error {
		seen, err := inspectServer(ctx, master)
		mu.Lock()
		defer mu.Unlock()
		all = append(all, seen)
		return err
	})
	if err != nil {
		return Inspection{}, err
	}
	return worstOf(all), nil
}

// inspectServer asks one server.
func inspectServer(ctx context.Context, client redis.Cmdable) (Inspection, error) {
	var seen Inspection
	var failed error
	// taken tells that a reply came; a refusal is noted, anything else ends it.
	taken := func(command string, err error) bool {
		var refusal redis.Error
		switch {
		case err == nil:
			return true
		case errors.As(err, &refusal):
			seen.Denied = append(seen.Denied, command)
		case failed == nil:
			failed = fmt.Errorf("inspect redis: %s: %w", command, err)
		}
		return false
	}

	if err := client.Ping(ctx).Err(); err != nil {
		return seen, fmt.Errorf("inspect redis: %w", err)
	}
	before := time.Now()
	if at, err := client.Time(ctx).Result(); taken("TIME", err) {
		seen.ClockOffset = offsetOf(at, before, time.Now())
	}
	var info map[string]string
	if text, err := client.Info(ctx).Result(); taken("INFO", err) {
		info = parseInfo(text)
		seen.fromInfo(info)
	}
	// CONFIG goes before INFO: it tells the setting, INFO only what is in force
	// just now.
	if values, err := client.ConfigGet(ctx, "appendonly").Result(); taken("CONFIG", err) {
		if v, told := values["appendonly"]; told {
			on := v == "yes"
			seen.AppendOnly = &on
		}
		if values, err := client.ConfigGet(ctx, "maxmemory-policy").Result(); taken("CONFIG", err) {
			seen.MaxMemoryPolicy = cmp.Or(values["maxmemory-policy"], seen.MaxMemoryPolicy)
		}
	}
	if info["cluster_enabled"] == "1" {
		if text, err := client.ClusterInfo(ctx).Result(); taken("CLUSTER", err) {
			covered := slotsCovered(parseInfo(text))
			seen.SlotsCovered = &covered
		}
	}
	return seen, failed
}

// fromInfo reads what INFO says. It leaves out what is not there: embedded
// servers and managed ones tell less.
func (i *Inspection) fromInfo(info map[string]string) {
	i.Version = info["redis_version"]
	i.Mode = info["redis_mode"]
	i.MaxMemoryPolicy = info["maxmemory_policy"]
	if v, told := info["aof_enabled"]; told {
		on := v == "1"
		i.AppendOnly = &on
	}
	i.Replicas, _ = strconv.Atoi(info["connected_slaves"]) // 0 where it is not told
}

// slotsCovered tells that every slot is served.
func slotsCovered(info map[string]string) bool {
	return info["cluster_state"] == "ok" && info["cluster_slots_ok"] == "16384"
}

// parseInfo reads lines of name:value, without the headings.
func parseInfo(text string) map[string]string {
	values := make(map[string]string)
	for line := range strings.Lines(text) {
		name, v, found := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		if found && !strings.HasPrefix(name, "#") {
			values[name] = v
		}
	}
	return values
}

// offsetOf is how far a clock read between before and after is ahead of ours;
// the answer is taken to have been made half-way.
func offsetOf(theirs, before, after time.Time) time.Duration {
	return theirs.Sub(before.Add(after.Sub(before) / 2))
}

// worstOf makes one of what several masters said.
func worstOf(all []Inspection) Inspection {
	if len(all) == 0 {
		return Inspection{}
	}
	worst := all[0]
	for _, i := range all[1:] {
		if CompareVersions(i.Version, worst.Version) < 0 {
			worst.Version = i.Version
		}
		worst.AppendOnly = both(worst.AppendOnly, i.AppendOnly)
		worst.SlotsCovered = both(worst.SlotsCovered, i.SlotsCovered)
		if worst.MaxMemoryPolicy == "noeviction" && i.MaxMemoryPolicy != "" {
			worst.MaxMemoryPolicy = i.MaxMemoryPolicy
		}
		worst.Replicas = min(worst.Replicas, i.Replicas)
		if i.ClockOffset.Abs() > worst.ClockOffset.Abs() {
			worst.ClockOffset = i.ClockOffset
		}
		worst.Denied = append(worst.Denied, i.Denied...)
	}
	slices.Sort(worst.Denied)
	worst.Denied = slices.Compact(worst.Denied)
	return worst
}

// both is false where either is, and not known where either is not.
func both(a, b *bool) *bool {
	switch {
	case a != nil && !*a:
		return a
	case b != nil && !*b:
		return b
	case a == nil:
		return nil
	}
	return b
}

// CompareVersions compares dotted numbers: negative where a is older than b. A
// part that is no number counts as 0.
func CompareVersions(a, b string) int {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for len(as) < len(bs) {
		as = append(as, "0")
	}
	for i, part := range as {
		x, _ := strconv.Atoi(part) // 0, as said
		y := 0
		if i < len(bs) {
			y, _ = strconv.Atoi(bs[i]) // the same
		}
		if x != y {
			return cmp.Compare(x, y)
		}
	}
	return 0
}
