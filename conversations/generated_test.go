package conversations

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// printed holds a printed file against what the code prints, or rewrites it.
func printed(t *testing.T, name, want string) {
	t.Helper()
	path := filepath.Join("..", "docs", name)
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("docs/%s is stale: run make generate and read the difference", name)
	}
}

// comments returns what is said of each constant of states.go behind it.
func comments(t *testing.T, typeName string) map[string]string {
	t.Helper()
	source, err := os.ReadFile("states.go")
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]string{}
	for line := range strings.Lines(string(source)) {
		code, comment, found := strings.Cut(line, " // ")
		fields := strings.Fields(code)
		if found && len(fields) >= 4 && fields[1] == typeName && fields[2] == "=" {
			said[strings.Trim(strings.Join(fields[3:], " "), `"`)] = strings.TrimSpace(comment)
		}
	}
	return said
}

type page struct{ strings.Builder }

func (p *page) say(lines ...string) {
	for _, l := range lines {
		p.WriteString(l + "\n")
	}
	p.WriteString("\n")
}

func (p *page) table(head []string, rows [][]string) {
	p.WriteString("| " + strings.Join(head, " | ") + " |\n|" + strings.Repeat("---|", len(head)) + "\n")
	for _, r := range rows {
		for i := range r {
			r[i] = strings.ReplaceAll(r[i], "|", "\\|")
		}
		p.WriteString("| " + strings.Join(r, " | ") + " |\n")
	}
	p.WriteString("\n")
}

// diagram prints a Mermaid state diagram; arrows of one pair are drawn once.
func (p *page) diagram(arrows [][3]string) {
	p.WriteString("```mermaid\nstateDiagram-v2\n")
	labels := map[[2]string][]string{}
	var order [][2]string
	for _, a := range arrows {
		pair := [2]string{a[0], a[1]}
		if labels[pair] == nil {
			order = append(order, pair)
		}
		if !slices.Contains(labels[pair], a[2]) {
			labels[pair] = append(labels[pair], a[2])
		}
	}
	for _, pair := range order {
		fmt.Fprintf(p, "    %s --> %s: %s\n", pair[0], pair[1], strings.Join(labels[pair], ", "))
	}
	p.WriteString("```\n\n")
}

func names[T ~string](list []T) string {
	var out []string
	for _, v := range list {
		if v == "" {
			out = append(out, "(new)")
		} else {
			out = append(out, string(v))
		}
	}
	return strings.Join(out, ", ")
}

const notByHand = "<!-- Printed from the code by `make generate`. Do not edit. -->"

// TestGeneratedStates keeps docs/states.md what the tables print.
func TestGeneratedStates(t *testing.T) {
	t.Parallel()
	p := &page{}
	p.say(notByHand, "# State machines", "",
		"Every change is an event given to `Apply` in `conversations`, which looks it up here. The first row that fits the state and the",
		"trigger, and whose guard holds, is taken; its effects are done and its event is shown to the agent, in one commit. A payment request",
		"refuses a pair without a row, with a reason, and records it. For attempts and messages such a pair changes nothing: the evidence",
		"came too late. A state that no row leads out of is final.")

	p.say("## Payment request")
	var arrows [][3]string
	var rows [][]string
	for _, e := range paymentEdges {
		to := string(e.To)
		for _, from := range e.From {
			if e.To != LifecycleUnknown && e.To != from {
				start := string(from)
				if from == LifecycleUnknown {
					start = "[*]"
				}
				arrows = append(arrows, [3]string{start, to, string(e.On)})
			}
		}
		if to == "" {
			to = "stays"
		}
		rows = append(rows, []string{names(e.From), string(e.On), string(e.If), to, names(e.Do), e.Log})
	}
	p.diagram(arrows)
	p.table([]string{"from", "on", "if", "to", "do", "shown as"}, rows)

	p.say("## Attempt")
	arrows, rows = [][3]string{{"[*]", string(AttemptSending), string(AttemptBegun)}}, nil
	for _, e := range attemptEdges {
		for _, from := range e.From {
			if from != e.To {
				arrows = append(arrows, [3]string{string(from), string(e.To), string(e.On)})
			}
		}
		rows = append(rows, []string{names(e.From), string(e.On), string(e.To)})
	}
	p.diagram(arrows)
	p.table([]string{"from", "on", "to"}, rows)

	p.say("## Message")
	arrows, rows = [][3]string{{"[*]", string(DeliveryQueued), "queued by a commit"}}, nil
	for _, e := range messageEdges {
		for _, from := range e.From {
			if from != e.To {
				arrows = append(arrows, [3]string{string(from), string(e.To), string(e.On)})
			}
		}
		rows = append(rows, []string{names(e.From), string(e.On), string(e.To), names(e.Do)})
	}
	p.diagram(arrows)
	p.table([]string{"from", "on", "to", "do"}, rows)
	p.say("Rank: " + names(deliveryRank) + ". Lower evidence only fills in its time.")

	p.say("## Consent, for each channel")
	arrows, rows = [][3]string{{"[*]", string(ConsentUnknown), "first seen"}}, nil
	for _, e := range consentEdges {
		confirm := ""
		if e.Confirm {
			confirm = "one confirmation, unless the provider sends it"
		}
		for _, from := range e.From {
			if from != e.To {
				arrows = append(arrows, [3]string{string(from), string(e.To), string(e.On)})
			}
		}
		rows = append(rows, []string{names(e.From), string(e.On), string(e.To), confirm})
	}
	p.diagram(arrows)
	p.table([]string{"from", "word", "to", "sent"}, rows)
	rows = nil
	for _, r := range intentRules {
		if r.Intent == IntentStop || r.Intent == IntentStart {
			of, by := "every", ""
			if len(r.Country) > 0 {
				of = strings.Join(r.Country, ", ")
			}
			if r.Provider {
				by = "where it does so at all"
				if len(r.Country) > 0 {
					of += "; every one where the provider heeds it"
				}
			}
			rows = append(rows, []string{
				string(r.Intent), cmp.Or(string(r.Channel), "every"), of, names(r.From), by, cmp.Or(r.Locale, "the conversation's"), strings.Join(r.Exact, ", "),
			})
		}
	}
	p.table([]string{"word", "channel", "phones of", "only from", "heeded and confirmed by the provider", "answered in", "the whole message is one of"}, rows)

	p.say("## Conversation")
	arrows, rows = [][3]string{{"[*]", string(ModeBot), "first seen"}}, nil
	for _, e := range modeEdges {
		if e.From != e.To {
			arrows = append(arrows, [3]string{string(e.From), string(e.To), string(e.On)})
		}
		rows = append(rows, []string{string(e.From), string(e.On), string(e.To), e.Do})
	}
	p.diagram(arrows)
	p.table([]string{"from", "on", "to", "the bot"}, rows)

	for _, what := range []struct{ heading, name string }{{"Triggers", "Trigger"}, {"Guards", "Guard"}, {"Effects", "Effect"}} {
		p.say("## " + what.heading)
		said := comments(t, what.name)
		rows = nil
		for _, name := range declared(t, what.name) {
			if name != "" {
				rows = append(rows, []string{name, said[name]})
			}
		}
		head := []string{"name", "meaning"}
		if what.name == "Guard" { // its name says it; the reason is what a refusal carries
			head[1] = "refused with"
			for _, r := range rows {
				r[1] = "`" + strings.Join(guardReasons(Guard(r[0])), "`, `") + "`"
			}
		}
		p.table(head, rows)
	}
	printed(t, "states.md", strings.TrimRight(p.String(), "\n")+"\n")
}

// guardReasons asks a guard about payment requests that fail it in every way.
func guardReasons(g Guard) []string {
	var reasons []string
	past, future := noon.Add(-1), noon.Add(1)
	for _, r := range []*PaymentRequest{
		{OpenBy: past}, {OpenBy: future}, {PayBy: &past}, {PayBy: &future}, {PayBy: &future, Superseded: true},
		{PayBy: &future, Attempts: []Attempt{{State: AttemptReversing}}},
		{PayBy: &future, Attempts: slices.Repeat([]Attempt{{State: AttemptNotTaken}}, maxAttempts)},
		{PayBy: &future, Contexts: slices.Repeat([]CaptureContext{{ExpiresAt: future}}, maxContexts)},
		{CapturedMinor: 2, PaidBy: 1},
	} {
		for i := range r.Attempts {
			r.Attempts[i].N = 9
		}
		for _, declines := range []int{0, someLimits.FreeDeclines + 1, someLimits.ContactTries} {
			p := &paymentTx{
				tx: &tx{State: State{Merchant: Merchant{MaxAttempts: 200, CardTesting: someLimits}}, now: noon, contact: &Contact{Declines: slices.Repeat([]time.Time{noon}, declines)}},
				r:  r, a: &Attempt{N: 9}, op: &Operation{Attempt: 9},
			}
			if no := guards[g](p); no != nil && !slices.Contains(reasons, no.Reason) {
				reasons = append(reasons, no.Reason)
			}
		}
	}
	return reasons
}

// TestGeneratedSchema keeps docs/redis.md what the schema prints, and the table
// in doc.go the same.
func TestGeneratedSchema(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var inDoc []string
	for line := range strings.Lines(string(doc)) {
		if row, ok := strings.CutPrefix(line, "//\t"); ok {
			inDoc = append(inDoc, strings.Join(strings.Fields(row), " "))
		}
	}
	want := []string{"key type holds lifetime"}
	for _, k := range schema {
		want = append(want, strings.Join(strings.Fields(k.Key+" "+k.Type+" "+k.Holds+" "+k.Lifetime), " "))
	}
	for i := range max(len(inDoc), len(want)) {
		if i >= len(inDoc) || i >= len(want) || inDoc[i] != want[i] {
			t.Fatalf("row %d of the table in doc.go differs from the schema:\ndoc.go %q\nschema %q", i, inDoc[min(i, len(inDoc)-1)], want[min(i, len(want)-1)])
		}
	}

	p := &page{}
	p.say(notByHand, "# Redis schema", "",
		"Redis is the only store. Every key begins with the store's prefix, `pt` unless configured. Keys of one partition share its hash tag,",
		"here `{p}`, and so one slot of a Redis Cluster: one script may touch them all. So do those of one callback endpoint, whose tag names its",
		"merchant and itself, here `{cb.<endpoint>}`. The others stand alone, each written by one command or script on its own key. Identifiers",
		"and link codes carry their partition as their first character after the prefix.")
	var rows [][]string
	for _, k := range schema {
		rows = append(rows, []string{"`" + k.Key + "`", k.Type, k.Holds, k.Lifetime, k.Wrote})
	}
	p.table([]string{"key", "type", "holds", "lifetime", "written by"}, rows)

	p.say("## Lifetimes", "", "All are settings; these are the defaults.")
	r := DefaultRetention()
	p.table([]string{"name", "default"}, [][]string{
		{"money", r.Money.String()}, {"chats", r.Chats.String()}, {"dedupe", r.Dedupe.String()}, {"idempotency", r.Idempotency.String()},
		{"sealed orders", r.SealedOrders.String()}, {"feed", r.Feed.String()}, {"commits", r.Commits.String()},
	})

	p.say("## Scripts")
	for _, s := range []struct{ name, text string }{{"commit.lua", commitLua}, {"load.lua", loadLua}, {"move.lua", moveLua}, {"sender.lua", senderLua}, {"release.lua", releaseLua}, {"revive.lua", reviveLua},
		{"callback_list.lua", callbackListLua}, {"callback_set.lua", callbackSetLua}, {"callback_queue.lua", callbackQueueLua}, {"callback_take.lua", callbackTakeLua},
		{"callback_record.lua", callbackRecordLua}, {"callback_again.lua", callbackAgainLua},
	} {
		p.say("### " + s.name)
		p.WriteString("```\n")
		for line := range strings.Lines(s.text) {
			comment, ok := strings.CutPrefix(line, "-- ")
			if !ok {
				break
			}
			p.WriteString(comment)
		}
		p.WriteString("```\n\n")
	}

	p.say("## Partitions", "",
		"Their number is fixed at the store's first start. Each tag's slot lies in the middle of the partition's share of all slots, so that",
		"masters with contiguous slot ranges hold even numbers of partitions. For 16, the default:")
	rows = nil
	for i, tag := range newKeys("pt", 16).tags {
		slot := slotOf(strings.Trim(tag, "{}"))
		rows = append(rows, []string{fmt.Sprintf("%d", i), "`" + string(idAlphabet[i]) + "`", "`" + tag + "`", fmt.Sprintf("%d", slot),
			fmt.Sprintf("%d", slot*3/slots+1), fmt.Sprintf("%d", slot*4/slots+1), fmt.Sprintf("%d", slot*8/slots+1)})
	}
	p.table([]string{"partition", "in identifiers", "tag", "slot", "master of 3", "of 4", "of 8"}, rows)
	printed(t, "redis.md", strings.TrimRight(p.String(), "\n")+"\n")
}

// TestPartitionsSpread: contiguous slot ranges of 1 to 16 masters get numbers
// of partitions that differ by one at most.
func TestPartitionsSpread(t *testing.T) {
	t.Parallel()
	for _, partitions := range []int{16, 32} {
		tags := newKeys("pt", partitions).tags
		for masters := 1; masters <= 16; masters++ {
			count := make([]int, masters)
			for _, tag := range tags {
				count[slotOf(strings.Trim(tag, "{}"))*masters/slots]++
			}
			if slices.Max(count)-slices.Min(count) > 1 {
				t.Errorf("%d partitions on %d masters: %v", partitions, masters, count)
			}
		}
	}
}
