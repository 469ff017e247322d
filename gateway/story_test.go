package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"go.yaml.in/yaml/v3"
)

// A story is a file of testdata/stories: what it is about, how the stage is
// set, and a conversation of which each line is said by somebody.
//
//	-- stage --
//	search_delay: 1h
//	-- story --
//	agent     asks 149.00 ZAR for order 1042 by whatsapp
//	customer  opens the link
//
// storyVerbs is the whole language: a line is one of its forms, with words of
// the story's own in the places of the braces.
type storyFile struct {
	name  string
	stage stageOptions
	lines []storyLine
}

type storyLine struct {
	number int // in the file
	text   string
}

// readStories reads the stories whose names match a glob pattern.
func readStories(t *testing.T, pattern string) []storyFile {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "stories", pattern+".txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no story is called %s: %v", pattern, err)
	}
	var stories []storyFile
	for _, file := range files {
		s, err := readStory(file)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		stories = append(stories, s)
	}
	return stories
}

func readStory(file string) (storyFile, error) {
	s := storyFile{name: strings.TrimSuffix(filepath.Base(file), ".txtar")}
	raw, err := os.ReadFile(file)
	if err != nil {
		return s, err
	}
	archive := txtar.Parse(raw)
	if strings.TrimSpace(string(archive.Comment)) == "" {
		return s, fmt.Errorf("say above the story what it is about")
	}
	for _, part := range archive.Files {
		switch part.Name {
		case "stage":
			if s.stage, err = readStage(part.Data); err != nil {
				return s, err
			}
		case "story":
			before, _, _ := strings.Cut(string(raw), "-- story --")
			s.lines = storyLines(string(part.Data), strings.Count(before, "\n")+2)
		default:
			return s, fmt.Errorf("%q is neither stage nor story", part.Name)
		}
	}
	if len(s.lines) == 0 {
		return s, fmt.Errorf("there is no story")
	}
	return s, nil
}

// readStage reads how the stage is set.
func readStage(text []byte) (stageOptions, error) {
	var in struct {
		Timings     string `yaml:"timings"`
		Pace        string `yaml:"pace"`
		TokenLife   string `yaml:"token_life"`
		SearchDelay string `yaml:"search_delay"`
		SMSAfter    string `yaml:"sms_after"`
		ReviewIn    string `yaml:"review_within"`
		TakeBackIn  string `yaml:"timeout_reversal_after"`
		Notifies    bool   `yaml:"notifications"`
	}
	if err := yaml.Unmarshal(text, &in); err != nil {
		return stageOptions{}, err
	}
	o := stageOptions{Timings: in.Timings, Money: moneyOfTheStage{Notifies: in.Notifies}}
	for _, d := range []struct {
		text string
		to   *time.Duration
	}{{in.Pace, &o.Pace}, {in.TokenLife, &o.TokenLife}, {in.SearchDelay, &o.SearchDelay}, {in.SMSAfter, &o.SMSAfter}, {in.ReviewIn, &o.Money.ReviewWithin}, {in.TakeBackIn, &o.Money.TakeBackAfter}} {
		if d.text == "" {
			continue
		}
		var err error
		if *d.to, err = time.ParseDuration(d.text); err != nil {
			return o, err
		}
	}
	return o, nil
}

func storyLines(text string, first int) []storyLine {
	var lines []storyLine
	for i, line := range strings.Split(text, "\n") {
		if line = strings.Join(strings.Fields(line), " "); line != "" && line[0] != '#' {
			lines = append(lines, storyLine{first + i, line})
		}
	}
	return lines
}

// storyWords are the words that may stand in the braces of a form.
var storyWords = map[string]string{
	"{amount}":   `(\d+\.\d\d [A-Z]{3})`,
	"{order}":    `(\S+)`,
	"{channel}":  `(whatsapp|sms)`,
	"{text}":     `"([^"]+)"`,
	"{n}":        `(\d+)`,
	"{events}":   `([a-z ,]+)`,
	"{event}":    `([a-z ]+)`,
	"{times}":    `(never|once|twice|\d+ times)`,
	"{seconds}":  `(\d+)`,
	"{state}":    `([a-z_]+(?: \([a-z_]+\))?(?:, late)?)`,
	"{reason}":   `([a-z_]+)`,
	"{card}":     `([a-z ]+)`,
	"{message}":  `(payment|receipt|cancellation|refund)`,
	"{switch}":   `(on|off)`,
	"{which}":    `(first|second)`,
	"{action}":   `(cancel|extend|resend)`,
	"{wish}":     `(capture|reverse|refund)`,
	"{decision}": `(accepts|rejects)`,
}

// verb is one form of a line and what it does.
type verb struct {
	form string
	do   func(*tale, []string)
	line *regexp.Regexp
}

var wordInForm = regexp.MustCompile(`\\\{[a-z]+\\\}`)

// compileVerbs makes the forms into expressions; a word without a meaning is
// the mistake of whoever wrote the form.
func compileVerbs(verbs []verb) []verb {
	for i, v := range verbs {
		pattern := wordInForm.ReplaceAllStringFunc(regexp.QuoteMeta(v.form), func(word string) string {
			meaning, ok := storyWords[strings.ReplaceAll(word, `\`, "")]
			if !ok {
				panic("the form " + v.form + " has the unknown word " + word)
			}
			return meaning
		})
		verbs[i].line = regexp.MustCompile("^" + pattern + "$")
	}
	return verbs
}

// findVerb returns the verb of a line and the line's own words.
func findVerb(line string) (*verb, []string, error) {
	verbs := storyVerbs()
	for i := range verbs {
		if m := verbs[i].line.FindStringSubmatch(line); m != nil {
			return &verbs[i], m[1:], nil
		}
	}
	who, _, _ := strings.Cut(line, " ")
	var near, all []string
	for _, v := range verbs {
		all = append(all, "  "+v.form)
		if strings.HasPrefix(v.form, who+" ") {
			near = append(near, "  "+v.form)
		}
	}
	if len(near) == 0 {
		near = all
	}
	return nil, nil, fmt.Errorf("nobody knows how to do %q; known are:\n%s", line, strings.Join(near, "\n"))
}

// tell plays a story on a stage of its own.
func (f storyFile) tell(t *testing.T, redis func(*testing.T) RedisConfig) {
	t.Helper()
	o := f.stage
	o.Redis = redis
	s := newTale(t, newStage(t, o))
	for _, line := range f.lines {
		v, words, err := findVerb(line.text)
		s.at = fmt.Sprintf("%s.txtar:%d: %s", f.name, line.number, line.text)
		if err != nil {
			s.fail("%v", err)
		}
		v.do(s, words)
	}
	s.at = f.name + ": at the end"
	s.close()
}

// onStage bounds how many stories are played at the same time: more would only
// make each of them slow on a small machine.
var onStage = make(chan struct{}, 4)

func tellAll(t *testing.T, stories []storyFile, redis func(*testing.T) RedisConfig) {
	for _, story := range stories {
		t.Run(story.name, func(t *testing.T) {
			t.Parallel()
			onStage <- struct{}{}
			t.Cleanup(func() { <-onStage })
			story.tell(t, redis)
		})
	}
}

// TestStories plays every story on a real redis-server.
func TestStories(t *testing.T) {
	t.Parallel()
	tellAll(t, readStories(t, "*"), onRealRedis)
}

// TestStoriesOnCluster plays one story a channel on a Cluster of three masters.
func TestStoriesOnCluster(t *testing.T) {
	t.Parallel()
	tellAll(t, readStories(t, "paid_*"), onCluster)
}

// TestStoriesOnEmbeddedRedis plays one story a channel on the Redis that the
// demo brings along.
func TestStoriesOnEmbeddedRedis(t *testing.T) {
	t.Parallel()
	tellAll(t, readStories(t, "paid_*"), onEmbedded)
}

// TestStoryLanguage holds the stories against the verbs, in both directions:
// each line has one verb, and each verb is used.
func TestStoryLanguage(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	for _, story := range readStories(t, "*") {
		for _, line := range story.lines {
			var forms []string
			for _, v := range storyVerbs() {
				if v.line.MatchString(line.text) {
					forms = append(forms, v.form)
					used[v.form] = true
				}
			}
			if len(forms) != 1 {
				t.Errorf("%s.txtar:%d: %s: got the forms %q, want one", story.name, line.number, line.text, forms)
			}
		}
	}
	for _, v := range storyVerbs() {
		if !used[v.form] {
			t.Errorf("no story says %q", v.form)
		}
	}
	_, _, err := findVerb("customer sings a song")
	if err == nil || !strings.Contains(err.Error(), "customer opens the link") || strings.Contains(err.Error(), "agent asks") {
		t.Errorf("an unknown line: got %v, want what the customer can do", err)
	}
	if _, _, err = findVerb("nobody knows"); err == nil || !strings.Contains(err.Error(), "agent asks") {
		t.Errorf("an unknown person's line: got %v, want all forms", err)
	}
}

// TestStoriesPerChannel: what is played on each kind of Redis tells of both
// channels.
func TestStoriesPerChannel(t *testing.T) {
	t.Parallel()
	var names []string
	for _, story := range readStories(t, "paid_*") {
		names = append(names, story.name)
	}
	if want := []string{"paid_sms", "paid_whatsapp"}; !slices.Equal(names, want) {
		t.Errorf("got the stories %q, want one a channel: %q", names, want)
	}
}

var storyVerbs = sync.OnceValue(func() []verb {
	return compileVerbs([]verb{
		{form: "agent asks {amount} for order {order} by {channel}", do: (*tale).agentAsks},
		{form: "shop asks {amount} for order {order} by {channel}, to be opened within {seconds} s and paid within {seconds} s", do: (*tale).shopAsks},
		{form: "agent asks again by {channel}", do: (*tale).agentAsksAgain},
		{form: "agent cannot ask by {channel}: {text}", do: (*tale).agentCannotAsk},
		{form: "agent sees {events}", do: (*tale).agentSees},
		{form: "agent has seen {event} {times}", do: (*tale).agentHasSeen},
		{form: "agent is told {text}", do: (*tale).agentIsTold},
		{form: "agent finds the request {state}", do: (*tale).agentFinds},
		{form: "agent presses {action}", do: (*tale).agentPresses},
		{form: "agent cannot press {action}: {reason}", do: (*tale).agentCannotPress},
		{form: "shop finds the {which} request {state}", do: (*tale).shopFinds},
		{form: "shop refunds {amount}", do: (*tale).shopRefunds},
		{form: "shop refunds the rest", do: (*tale).shopRefunds},

		{form: "customer receives the {message} message by {channel}", do: (*tale).customerReceives},
		{form: "customer has received {n} messages by {channel}", do: (*tale).customerHasReceived},
		{form: "customer reads the messages", do: (*tale).customerReads},
		{form: "customer looks at the link", do: (*tale).customerLooks},
		{form: "customer opens the link", do: (*tale).customerOpens},
		{form: "customer opens the link in the {which} message", do: (*tale).customerOpensNth},
		{form: "customer sees {text}", do: (*tale).customerSees},
		{form: "customer pays with a card that is {card}", do: (*tale).customerPays},
		{form: "customer pays twice at once, with a card that is {card}", do: (*tale).customerPaysTwice},
		{form: "customer cannot pay: {text}", do: (*tale).customerCannotPay},
		{form: "customer asks for more time", do: (*tale).customerExtends},
		{form: "customer opens the receipt", do: (*tale).customerOpensReceipt},
		{form: "customer finds {text} on the receipt", do: (*tale).customerFindsOnReceipt},
		{form: "customer writes {text} by {channel}", do: (*tale).customerWrites},
		{form: "customer is answered {text}", do: (*tale).customerIsAnswered},
		{form: "customer switches the phone {switch}", do: (*tale).customerSwitches},
		{form: "customer leaves whatsapp", do: (*tale).customerLeavesWhatsApp},

		{form: "provider will report each status twice", do: (*tale).providerRepeats},
		{form: "provider will report delivered before sent", do: (*tale).providerReorders},
		{form: "provider will report nothing by whatsapp", do: (*tale).providerIsSilent},
		{form: "platform will lose its next answer", do: (*tale).platformLosesAnswer},
		{form: "platform shows the payment in its search", do: (*tale).platformShows},
		{form: "bank shows {n} payments and {n} given back", do: (*tale).bankShows},

		{form: "shop asks to hold {amount} for order {order} by {channel}", do: (*tale).shopAsksToHold},
		{form: "shop captures {amount}", do: (*tale).shopCaptures},
		{form: "shop captures the rest", do: (*tale).shopCaptures},
		{form: "shop gives the payment back", do: (*tale).shopReverses},
		{form: "shop cannot {wish}: {reason}", do: (*tale).shopCannot},
		{form: "shop's books say {amount} captured, {amount} reversed, {amount} refunded", do: (*tale).shopCounts},
		{form: "person in the business center refunds {amount}", do: (*tale).personRefunds},
		{form: "reviewer {decision} the payment", do: (*tale).reviewerDecides},
		{form: "gateway restarts", do: (*tale).gatewayRestarts},
	})
})
