package conversations

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed lua/callback_list.lua
	callbackListLua string
	//go:embed lua/callback_set.lua
	callbackSetLua string

	callbackListScript = redis.NewScript(callbackListLua)
	callbackSetScript  = redis.NewScript(callbackSetLua)
)

// CallbackOptions say how deliveries to merchants' endpoints are kept and tried.
type CallbackOptions struct {
	Keep         time.Duration   // deliveries, from their event on
	DisableAfter time.Duration   // an endpoint that only fails for so long is switched off
	Timetable    []time.Duration // the waits before each try, the first included
}

// DefaultCallbackOptions returns the timetable and lifetimes of production.
func DefaultCallbackOptions() CallbackOptions {
	s, m, h := time.Second, time.Minute, time.Hour
	return CallbackOptions{
		Keep: 30 * 24 * h, DisableAfter: 3 * 24 * h,
		Timetable: []time.Duration{0, 5 * s, 30 * s, 2 * m, 10 * m, 30 * m, h, 2 * h, 5 * h, 10 * h, 14 * h, 20 * h, 24 * h},
	}
}

// Callbacks are the merchants' endpoints and what waits to be delivered to
// them. An endpoint with its queue lies outside the partitions, under a tag of
// its own. It is safe for concurrent use.
type Callbacks struct {
	s *Store
	o CallbackOptions
}

// NewCallbacks returns the callbacks of a store. What o leaves open is as in
// DefaultCallbackOptions.
func NewCallbacks(s *Store, o CallbackOptions) *Callbacks {
	d := DefaultCallbackOptions()
	o.Keep, o.DisableAfter = cmp.Or(o.Keep, d.Keep), cmp.Or(o.DisableAfter, d.DisableAfter)
	if len(o.Timetable) == 0 {
		o.Timetable = d.Timetable
	}
	return &Callbacks{s: s, o: o}
}

// CallbackSource is where an endpoint is kept.
type CallbackSource string

// The sources of endpoints. One of the configuration cannot be changed by calls,
// but for switching it on and off; its secrets never come into the store.
const (
	CallbackFromConfig CallbackSource = "config"
	CallbackFromAPI    CallbackSource = "api"
)

// CallbackState is whether an endpoint gets events.
type CallbackState string

// The states of an endpoint. What happens while it is disabled waits for it, as
// long as deliveries are kept.
const (
	CallbackActive   CallbackState = "active"
	CallbackDisabled CallbackState = "disabled"
)

// Why an endpoint is disabled.
const (
	CallbackByMerchant = "by_merchant"
	CallbackFailing    = "failing" // every try failed for longer than DisableAfter
	CallbackGone       = "gone"    // it answered 410
)

// MaxCallbackEndpoints bounds how many endpoints a merchant may have.
const MaxCallbackEndpoints = 10

const (
	callbackPrefix = "ce_"
	// secretPrefix begins a secret of the Standard Webhooks scheme.
	secretPrefix = "whsec_"
	// maxCallbackSecrets bounds how many secrets sign at once.
	maxCallbackSecrets = 4
)

// CallbackSecret is one secret that signs what is sent to an endpoint.
type CallbackSecret struct {
	Value string     `json:"value"`           // whsec_ and base64
	Until *time.Time `json:"until,omitempty"` // of one that was replaced: it signs until then
}

// LogValue leaves the secret out.
func (CallbackSecret) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// String leaves the secret out.
func (CallbackSecret) String() string { return "[redacted]" }

// CallbackEndpoint is an address of a merchant's systems that gets events.
type CallbackEndpoint struct {
	ID          string         `json:"id"`
	MerchantID  string         `json:"merchant_id"`
	URL         string         `json:"url"`
	Description string         `json:"description,omitempty"`
	Events      []string       `json:"events,omitempty"` // wanted types, see Wants; empty: every one
	Source      CallbackSource `json:"source"`
	CreatedAt   time.Time      `json:"created_at"`
	UpdatedAt   time.Time      `json:"updated_at"`
	Revision    string         `json:"revision"` // another one after each change

	State       CallbackState    `json:"-"`
	Reason      string           `json:"-"` // why it is disabled
	Since       time.Time        `json:"-"` // of the state
	Failing     *time.Time       `json:"-"` // since when every try has failed
	DeliveredAt *time.Time       `json:"-"` // the last try that succeeded
	Secrets     []CallbackSecret `json:"-"` // newest first; none of one of the configuration

	raw string // the definition as it was read
}

// LogValue names the endpoint and leaves out its address, which may hold a
// secret.
func (e CallbackEndpoint) LogValue() slog.Value { return slog.StringValue(e.MerchantID + "/" + e.ID) }

// String names the endpoint.
func (e CallbackEndpoint) String() string { return e.MerchantID + "/" + e.ID }

// Wants tells whether an endpoint gets events of a type: it names the type, or
// "payment_request.*" for all that begin so, or nothing. Types without a dot,
// such as reset, go to every endpoint: they are about the callbacks themselves.
func (e CallbackEndpoint) Wants(kind string) bool {
	if len(e.Events) == 0 || !strings.Contains(kind, ".") {
		return true
	}
	return slices.ContainsFunc(e.Events, func(wanted string) bool {
		group, all := strings.CutSuffix(wanted, "*")
		return wanted == kind || all && strings.HasPrefix(kind, group)
	})
}

// SecretsAt returns the secrets that sign at a time, newest first.
func (e CallbackEndpoint) SecretsAt(now time.Time) []string {
	var values []string
	for _, s := range e.Secrets {
		if s.Until == nil || now.Before(*s.Until) {
			values = append(values, s.Value)
		}
	}
	return values
}

// The fields of an endpoint's hash.
const (
	defField     = "def"
	secretsField = "secrets"
	stateField   = "state"
	reasonField  = "reason"
	sinceField   = "since"
	failingField = "failing"
	okField      = "ok"
	toldField    = "told"
)

var errEndpoint = NotFound("callback endpoint")

// Endpoints returns a merchant's endpoints, the oldest first.
func (c *Callbacks) Endpoints(ctx context.Context, merchantID string) ([]CallbackEndpoint, error) {
	listed, err := c.s.rdb.HKeys(ctx, c.s.keys.callbacks(merchantID)).Result()
	if err != nil {
		return nil, Unavailable(fmt.Errorf("read the callback endpoints: %w", err))
	}
	pipe := c.s.rdb.Pipeline()
	reads := make([]*redis.MapStringStringCmd, len(listed))
	for i, id := range listed {
		reads[i] = pipe.HGetAll(ctx, c.s.keys.callback(merchantID, id, "ep"))
	}
	if len(reads) > 0 {
		if _, err := pipe.Exec(ctx); err != nil {
			return nil, Unavailable(fmt.Errorf("read the callback endpoints: %w", err))
		}
	}
	var found []CallbackEndpoint
	for _, read := range reads {
		e, err := endpointOf(read.Val())
		if errors.Is(err, errEndpoint) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		found = append(found, e)
	}
	slices.SortFunc(found, func(a, b CallbackEndpoint) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return found, nil
}

// Endpoint returns one of a merchant's endpoints. CodeNotFound if there is none.
func (c *Callbacks) Endpoint(ctx context.Context, merchantID, id string) (CallbackEndpoint, error) {
	if !callbackIDFits(id) {
		return CallbackEndpoint{}, errEndpoint
	}
	fields, err := c.s.rdb.HGetAll(ctx, c.s.keys.callback(merchantID, id, "ep")).Result()
	if err != nil {
		return CallbackEndpoint{}, Unavailable(fmt.Errorf("read a callback endpoint: %w", err))
	}
	return endpointOf(fields)
}

// callbackIDFits tells whether an id can be that of an endpoint, so that what
// comes from outside spells no other key.
func callbackIDFits(id string) bool {
	return id != "" && len(id) <= 64 && !strings.ContainsFunc(id, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
	})
}

func endpointOf(fields map[string]string) (CallbackEndpoint, error) {
	var e CallbackEndpoint
	if fields[defField] == "" {
		return e, errEndpoint
	}
	if err := json.Unmarshal([]byte(fields[defField]), &e); err != nil {
		return e, fmt.Errorf("conversations: reading a callback endpoint: %w", err)
	}
	if text := fields[secretsField]; text != "" {
		if err := json.Unmarshal([]byte(text), &e.Secrets); err != nil {
			return e, fmt.Errorf("conversations: reading the secrets of callback endpoint %s: %w", e, err)
		}
	}
	e.raw = fields[defField]
	e.State, e.Reason = CallbackState(fields[stateField]), fields[reasonField]
	if at := millisOf(fields[sinceField]); at != nil {
		e.Since = *at
	}
	e.Failing, e.DeliveredAt = millisOf(fields[failingField]), millisOf(fields[okField])
	return e, nil
}

// millisOf reads a time that a script has written; nil for none.
func millisOf(text string) *time.Time {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil
	}
	at := time.UnixMilli(n).UTC()
	return &at
}

// moveTo changes where an endpoint is. What failed elsewhere counts no more.
func (e *CallbackEndpoint) moveTo(url string) {
	if e.URL != url {
		e.URL, e.Failing = url, nil
	}
}

// CallbackInput is what a caller says of an endpoint. nil leaves as it is.
type CallbackInput struct {
	URL         *string
	Description *string
	Events      *[]string
}

func (in CallbackInput) into(e *CallbackEndpoint) {
	if in.URL != nil {
		e.moveTo(*in.URL)
	}
	if in.Description != nil {
		e.Description = *in.Description
	}
	if in.Events != nil {
		e.Events = *in.Events
	}
}

// Create makes an endpoint with a secret of its own, which is in the answer.
// With once, a repeat gets the same endpoint and secret. A merchant that has
// MaxCallbackEndpoints is refused with the reason too_many_endpoints.
func (c *Callbacks) Create(ctx context.Context, merchantID string, in CallbackInput, once Once) (CallbackEndpoint, error) {
	chosen, err := c.s.choose(ctx, merchantID, plan{
		Hash: once.Hash, EndpointID: callbackPrefix + randomText(idLength+1), Secret: newCallbackSecret(), AskedAt: c.s.Now().UnixMilli(),
	}, once)
	if err != nil {
		return CallbackEndpoint{}, err
	}
	at := time.UnixMilli(chosen.AskedAt).UTC()
	e := CallbackEndpoint{
		ID: chosen.EndpointID, MerchantID: merchantID, Source: CallbackFromAPI, CreatedAt: at, UpdatedAt: at,
		State: CallbackActive, Since: at, Secrets: []CallbackSecret{{Value: chosen.Secret}},
	}
	in.into(&e)
	made, err := c.write(ctx, e, "")
	if err != nil {
		return CallbackEndpoint{}, err
	}
	// Listed last: an event that comes after this call finds it whole.
	if err := c.list(ctx, e, MaxCallbackEndpoints); err != nil {
		if made && CodeOf(err) == CodeConflict {
			err = errors.Join(err, c.forget(ctx, merchantID, e.ID))
		}
		return CallbackEndpoint{}, err
	}
	return e, nil
}

// write keeps an endpoint whose definition is still as expected, "" for one
// that is not there; false if it is not.
func (c *Callbacks) write(ctx context.Context, e CallbackEndpoint, expected string) (bool, error) {
	e.Revision = randomText(8)
	def, err := json.Marshal(e)
	if err != nil {
		return false, fmt.Errorf("conversations: writing a callback endpoint: %w", err)
	}
	secrets := ""
	if len(e.Secrets) > 0 {
		b, err := json.Marshal(e.Secrets)
		if err != nil {
			return false, fmt.Errorf("conversations: writing the secrets of a callback endpoint: %w", err)
		}
		secrets = string(b)
	}
	fields := []any{defField, string(def), secretsField, secrets}
	if e.Failing == nil {
		fields = append(fields, failingField, "")
	}
	if expected == "" {
		fields = append(fields, stateField, string(e.State), sinceField, e.Since.UnixMilli())
	}
	return c.set(ctx, c.s.keys.callback(e.MerchantID, e.ID, "ep"), defField, expected, fields...)
}

// set writes fields of a hash if one of them still is as expected.
func (c *Callbacks) set(ctx context.Context, key, field, expected string, fields ...any) (bool, error) {
	done, err := callbackSetScript.Run(ctx, c.s.rdb, []string{key}, append([]any{field, expected}, fields...)...).Int()
	if err != nil {
		return false, Unavailable(fmt.Errorf("write a callback endpoint: %w", err))
	}
	return done == 1, nil
}

func (c *Callbacks) list(ctx context.Context, e CallbackEndpoint, most int) error {
	listed, err := callbackListScript.Run(ctx, c.s.rdb, []string{c.s.keys.callbacks(e.MerchantID)}, e.ID, string(e.Source), most).Int()
	if err != nil {
		return Unavailable(fmt.Errorf("list a callback endpoint: %w", err))
	}
	if listed == 0 {
		return Refused("too_many_endpoints", "there are %d callback endpoints, which is the most; delete one first", MaxCallbackEndpoints)
	}
	return nil
}

// maxTriesToSet bounds how often a change is tried anew because another came
// between.
const maxTriesToSet = 20

// change reads, changes and writes an endpoint. apply returns false where
// nothing is to be done.
func (c *Callbacks) change(ctx context.Context, merchantID, id string, apply func(*CallbackEndpoint) (bool, error)) (CallbackEndpoint, error) {
	for range maxTriesToSet {
		e, err := c.Endpoint(ctx, merchantID, id)
		if err != nil {
			return e, err
		}
		if do, err := apply(&e); err != nil || !do {
			return e, err
		}
		if done, err := c.write(ctx, e, e.raw); err != nil || done {
			return e, err
		}
	}
	return CallbackEndpoint{}, Unavailable(errors.New("a callback endpoint is being changed by many at once"))
}

// wish is a change that a caller asked for.
type wish struct {
	plan
	at     time.Time // when it was asked for the first time
	repeat bool      // it was asked for before, under the same key
}

// overtaken tells whether a wish is a repeat that comes after another change.
// Times alone would not do: the store's clock may go back, and what is wanted
// then is wanted nevertheless.
func (w wish) overtaken(by time.Time) bool { return w.repeat && by.After(w.at) }

// asked keeps what a caller's key stands for, or returns what it was the first
// time.
func (c *Callbacks) asked(ctx context.Context, merchantID string, p plan, once Once) (wish, error) {
	now := c.s.Now().UnixMilli()
	p.Hash, p.AskedAt = once.Hash, now
	first, err := c.s.choose(ctx, merchantID, p, once)
	return wish{plan: first, at: time.UnixMilli(first.AskedAt).UTC(), repeat: first.AskedAt != now}, err
}

// Asked returns when something was asked for under a caller's key the first
// time, for what needs no more than that. Another call under the key is refused.
func (c *Callbacks) Asked(ctx context.Context, merchantID string, once Once) (time.Time, error) {
	w, err := c.asked(ctx, merchantID, plan{}, once)
	return w.at, err
}

var errConfigured = Refused("configured", "this callback endpoint stands in the gateway's configuration and is changed there")

// Update changes where an endpoint is and what it gets.
func (c *Callbacks) Update(ctx context.Context, merchantID, id string, in CallbackInput, once Once) (CallbackEndpoint, error) {
	w, err := c.asked(ctx, merchantID, plan{}, once)
	if err != nil {
		return CallbackEndpoint{}, err
	}
	return c.change(ctx, merchantID, id, func(e *CallbackEndpoint) (bool, error) {
		if e.Source == CallbackFromConfig {
			return false, errConfigured
		}
		if w.overtaken(e.UpdatedAt) {
			return false, nil
		}
		e.UpdatedAt = w.at
		in.into(e)
		return true, nil
	})
}

// RotateSecret gives an endpoint a new secret, which is in the answer. The one
// before it signs for some time more. With once, a repeat gets the same secret.
func (c *Callbacks) RotateSecret(ctx context.Context, merchantID, id string, old time.Duration, once Once) (CallbackEndpoint, string, error) {
	w, err := c.asked(ctx, merchantID, plan{Secret: newCallbackSecret()}, once)
	if err != nil {
		return CallbackEndpoint{}, "", err
	}
	until := w.at.Add(old)
	e, err := c.change(ctx, merchantID, id, func(e *CallbackEndpoint) (bool, error) {
		if e.Source == CallbackFromConfig {
			return false, errConfigured
		}
		if slices.ContainsFunc(e.Secrets, func(s CallbackSecret) bool { return s.Value == w.Secret }) {
			return false, nil // a repeat
		}
		kept := []CallbackSecret{{Value: w.Secret}}
		for _, s := range e.Secrets {
			if s.Until == nil {
				s.Until = &until
			}
			if w.at.Before(*s.Until) {
				kept = append(kept, s)
			}
		}
		if len(kept) > maxCallbackSecrets {
			return false, Refused("too_many_secrets", "the secret was replaced %d times in a day; wait until an old one has run out", len(kept)-1)
		}
		e.Secrets, e.UpdatedAt = kept, w.at
		return true, nil
	})
	return e, w.Secret, err
}

// newCallbackSecret returns a secret of 32 random bytes.
func newCallbackSecret() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails since Go 1.24
	return secretPrefix + base64.StdEncoding.EncodeToString(b)
}

// Switch switches an endpoint on or off. What waits for it goes out at once when
// it is switched on.
func (c *Callbacks) Switch(ctx context.Context, merchantID, id string, to CallbackState, once Once) (e CallbackEndpoint, changed bool, err error) {
	w, err := c.asked(ctx, merchantID, plan{}, once)
	if err != nil {
		return e, false, err
	}
	for range maxTriesToSet {
		if e, err = c.Endpoint(ctx, merchantID, id); err != nil {
			return e, false, err
		}
		if e.State == to || w.overtaken(e.Since) {
			return e, false, nil
		}
		from := e.State
		e.State, e.Since, e.Reason, e.Failing = to, w.at, "", nil
		// The merchant did it: its other endpoints are told by whoever asked.
		told := ""
		if to == CallbackDisabled {
			e.Reason, told = CallbackByMerchant, "1"
		}
		done, err := c.set(ctx, c.s.keys.callback(merchantID, id, "ep"), stateField, string(from),
			stateField, string(to), reasonField, e.Reason, sinceField, w.at.UnixMilli(), failingField, "", toldField, told)
		if err != nil || done {
			return e, done, err
		}
	}
	return e, false, Unavailable(errors.New("a callback endpoint is being changed by many at once"))
}

// Delete forgets an endpoint and what waits for it.
func (c *Callbacks) Delete(ctx context.Context, merchantID, id string) error {
	e, err := c.Endpoint(ctx, merchantID, id)
	if err != nil {
		return err
	}
	if e.Source == CallbackFromConfig {
		return errConfigured
	}
	return c.forget(ctx, merchantID, id)
}

func (c *Callbacks) forget(ctx context.Context, merchantID, id string) error {
	if err := c.s.rdb.HDel(ctx, c.s.keys.callbacks(merchantID), id).Err(); err != nil {
		return Unavailable(fmt.Errorf("delete a callback endpoint: %w", err))
	}
	var all []string
	for _, part := range []string{"ep", "due", "open", "all"} {
		all = append(all, c.s.keys.callback(merchantID, id, part))
	}
	if err := c.s.rdb.Del(ctx, all...).Err(); err != nil {
		return Unavailable(fmt.Errorf("delete a callback endpoint: %w", err))
	}
	return nil
}

// Configure makes a merchant's endpoints of the configuration be those given,
// and leaves those of the API alone. One that has moved is switched on again.
func (c *Callbacks) Configure(ctx context.Context, merchantID string, wanted []CallbackEndpoint) error {
	listed, err := c.s.rdb.HGetAll(ctx, c.s.keys.callbacks(merchantID)).Result()
	if err != nil {
		return Unavailable(fmt.Errorf("read the callback endpoints: %w", err))
	}
	now := c.s.Now().Truncate(time.Millisecond)
	for _, w := range wanted {
		w.MerchantID, w.Source, w.Secrets = merchantID, CallbackFromConfig, nil
		w.CreatedAt, w.UpdatedAt, w.State, w.Since = now, now, CallbackActive, now
		made, err := c.write(ctx, w, "")
		if err != nil {
			return err
		}
		if !made {
			moved := false
			if _, err = c.change(ctx, merchantID, w.ID, func(e *CallbackEndpoint) (bool, error) {
				if e.URL == w.URL && e.Description == w.Description && slices.Equal(e.Events, w.Events) {
					return false, nil
				}
				moved = e.URL != w.URL
				e.moveTo(w.URL)
				e.Description, e.Events, e.UpdatedAt = w.Description, w.Events, now
				return true, nil
			}); err != nil {
				return err
			}
			if moved {
				if _, _, err := c.Switch(ctx, merchantID, w.ID, CallbackActive, Once{}); err != nil {
					return err
				}
			}
		}
		if err := c.list(ctx, w, 0); err != nil {
			return err
		}
		delete(listed, w.ID)
	}
	for _, id := range slices.Sorted(maps.Keys(listed)) {
		if CallbackSource(listed[id]) == CallbackFromConfig {
			if err := c.forget(ctx, merchantID, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// The fields of the digests of a merchant's settings, beside those of the
// settings themselves.
const (
	settingsVersion = ".version"
	settingsSalt    = ".salt"
)

// NoteSettings compares a merchant's settings with what was noted last, calls
// changed with the names of those that differ, and notes them if it returns no
// error. What is noted are keyed digests, never values. version is the same for
// all who notice the same change. The first time nothing counts as changed.
func (c *Callbacks) NoteSettings(ctx context.Context, merchantID string, settings map[string]string, changed func(names []string, version string) error) error {
	key := c.s.keys.settings(merchantID)
	for range maxTriesToSet {
		noted, err := c.s.rdb.HGetAll(ctx, key).Result()
		if err != nil {
			return Unavailable(fmt.Errorf("read the digests of settings: %w", err))
		}
		version, salt := noted[settingsVersion], cmp.Or(noted[settingsSalt], randomText(idLength))
		n, _ := strconv.Atoi(version) // 0 the first time
		fields := []any{settingsVersion, strconv.Itoa(n + 1), settingsSalt, salt}
		var names []string
		now := map[string]string{}
		for _, name := range slices.Sorted(maps.Keys(settings)) {
			mac := hmac.New(sha256.New, []byte(salt))
			mac.Write([]byte(name + "\n" + settings[name])) // a hash takes everything
			now[name] = base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:16])
			if noted[name] != now[name] {
				names, fields = append(names, name), append(fields, name, now[name])
			}
		}
		for _, name := range slices.Sorted(maps.Keys(noted)) {
			if now[name] == "" && name != settingsVersion && name != settingsSalt {
				names, fields = append(names, name), append(fields, name, "")
			}
		}
		if len(names) == 0 {
			return nil
		}
		slices.Sort(names)
		if version != "" {
			if err := changed(names, version+"_"+digest(fmt.Sprint(now))); err != nil {
				return err
			}
		}
		if done, err := c.set(ctx, key, settingsVersion, version, fields...); err != nil || done {
			return err
		}
	}
	return Unavailable(errors.New("the settings are being noted by many at once"))
}
