package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"paythread/checkout"
)

// The exit codes of every command.
const (
	exitOK     = 0
	exitFailed = 1 // what was asked for did not work, or found something wrong
	exitUsage  = 2 // it was not clear what is asked for
)

// process is what a command has of the process that it runs in.
type process struct {
	stdin  io.Reader
	stdout io.Writer // what was asked for
	stderr io.Writer // everything else
	env    []string  // as os.Environ returns it
}

// action is a command with its flags read. The error it returns is printed and
// makes the exit code 1, a usageError 2.
type action func(context.Context, process) error

// command is one row of the table of commands.
type command struct {
	name     string // one word or two: "config check"
	synopsis string // the flags that matter, for the usage line
	short    string // one line for the list
	long     string // for -h: what it does, in sentences
	operands bool   // it takes words behind the flags
	// prepare defines the flags and returns what runs once they are read.
	prepare func(*flag.FlagSet) action
}

// commands is every command in the order of the list that help prints.
var commands = slices.Concat([]command{
	{
		name:     "demo",
		synopsis: "[--play] [--redis-url URL]",
		short:    "run everything in one process, to try it out",
		long: "Runs the gateway with an embedded Redis, simulators of the messaging and payment companies, the customer's phone\n" +
			"and a sample order system, and prints the address of a start page. With --play it tells the whole story by itself.",
		prepare: demoCommand,
	},
	{
		name:     "serve",
		synopsis: "--config FILE",
		short:    "run the gateway",
		long: "Runs the gateway until it gets SIGTERM or SIGINT, and then stops what runs in good order.\n" +
			"It reads its configuration again on SIGHUP, and when the file or a secret file that it names has changed.",
		prepare: serveCommand,
	},
	{
		name:     "simulate",
		synopsis: "[--listen ADDRESS] [--gateway URL] [--tls]",
		short:    "run the simulated world alone, for those who integrate",
		long: "Runs the simulators of the messaging and payment companies, the customers' phones and the sample order system.\n" +
			"With --tls they are served over https: a certificate authority is made, and the program says where it lies.",
		prepare: simulateCommand,
	},
	{
		name:     "config check",
		synopsis: "--config FILE",
		short:    "check a configuration and report all that is wrong",
		long: "Reads the file and the environment as \"serve\" does, and starts nothing. Every problem is reported with its line,\n" +
			"its key and what would be right.",
		prepare: configCheckCommand,
	},
	{
		name:  "config example",
		short: "print a configuration to begin with",
		long:  "Prints a file that \"config check\" accepts: every key with its explanation, its default or a sample.",
		prepare: func(*flag.FlagSet) action {
			return func(_ context.Context, p process) error { return write(p.stdout, printExample()) }
		},
	},
	{
		name:  "config schema",
		short: "print the JSON Schema of the configuration",
		long:  "Prints a JSON Schema (2020-12) for editors and for other tools that write the file.",
		prepare: func(*flag.FlagSet) action {
			return func(_ context.Context, p process) error { return write(p.stdout, printSchema()) }
		},
	},
	{
		name:     "keys new",
		synopsis: "--dir DIR",
		short:    "make a key that signs links, or replace it",
		long: "Makes DIR/" + checkout.CurrentKeyFile + ". If there is one already, it becomes DIR/" + checkout.PreviousKeyFile +
			" and a new one takes its place;\nkeep the previous one 48 hours, because links that it signed are in use.",
		prepare: keysNewCommand,
	},
	{
		name:     "doctor",
		synopsis: "--config FILE [--local] [--json]",
		short:    "look at what a deployment needs, and say how to mend it",
		long: "Checks the configuration, the link keys and Redis, asks the payment platforms and the messaging companies, and prints what it\n" +
			"found. It changes nothing, anywhere.\n" +
			"The exit code is 1 if a check failed; warnings alone leave it 0.",
		prepare: doctorCommand,
	},
	{
		name:     "audit",
		synopsis: "--config FILE --merchant ID [--since 48h]",
		short:    "compare what the payment platform did with what is known here",
		long: "Asks the merchant's payment platform for all that it did since then, holds it against the payments and operations that\n" +
			"are known here, and prints both with what differs. It changes nothing, anywhere.\n" +
			"The exit code is 1 if something differs.",
		prepare: auditCommand,
	},
	{
		name:     "dead-letters list",
		synopsis: "--config FILE",
		short:    "list the work that could not be done",
		long: "Lists messages that could not be sent, and questions and operations about payments that could not be carried out, of\n" +
			"every merchant, the oldest first, each with its reason.",
		prepare: deadLettersListCommand,
	},
	{
		name:     "dead-letters retry",
		synopsis: "--config FILE ID... | --all",
		operands: true,
		short:    "do such work again",
		long:     "Puts dead letters back to be worked, once what was wrong is mended. What fails again comes back as another one.",
		prepare:  deadLettersRetryCommand,
	},
	{
		name:     "dead-letters drop",
		synopsis: "--config FILE ID... | --all",
		operands: true,
		short:    "give such work up",
		long:     "Forgets dead letters. A message counts as failed then, and the next one to its customer goes out.",
		prepare:  deadLettersDropCommand,
	},
}, callbackCommands, []command{
	{
		name:  "version",
		short: "print the version",
		long:  "Prints the version of this program, its commit, and the Go that built it.",
		prepare: func(*flag.FlagSet) action {
			return func(_ context.Context, p process) error { return write(p.stdout, []byte(versionLine()+"\n")) }
		},
	},
})

// usageError says that the command line is wrong.
type usageError struct{ message string }

func (e usageError) Error() string { return e.message }

// errReported ends a command that has printed its failure itself.
var errReported = errors.New("reported")

// run is the whole program: it picks the command, reads its flags, runs it, and
// returns the exit code. ctx ends when the process is asked to stop.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, env []string) int {
	p := process{stdin: stdin, stdout: stdout, stderr: stderr, env: env}
	if len(args) == 0 {
		p.say(stderr, usage(""))
		return exitUsage
	}
	if isHelp(args[0]) {
		p.say(stdout, usage(""))
		return exitOK
	}
	c, rest, found := pick(args)
	if !found {
		return p.unknown(args)
	}
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // its errors are printed below, in our words
	act := c.prepare(flags)
	err := flags.Parse(rest)
	switch {
	case errors.Is(err, flag.ErrHelp):
		p.say(stdout, c.help(flags))
		return exitOK
	case err != nil:
		err = usageError{err.Error()}
	case flags.NArg() > 0 && !c.operands:
		err = usageError{fmt.Sprintf("does not take %q", shorten(flags.Arg(0)))}
	default:
		err = act(ctx, p)
	}
	return p.exit(c, err)
}

// exit prints why a command failed and returns its code.
func (p process) exit(c command, err error) int {
	var wrong usageError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errReported):
		return exitFailed
	case errors.As(err, &wrong):
		p.say(p.stderr, fmt.Sprintf("paythread %s: %s\nUsage: %s\n\"paythread %s -h\" says more.\n", c.name, wrong.message, c.usage(), c.name))
		return exitUsage
	}
	p.say(p.stderr, fmt.Sprintf("paythread %s: %v\n", c.name, err))
	return exitFailed
}

// unknown explains that there is no such command.
func (p process) unknown(args []string) int {
	word := args[0]
	if list := usage(word); list != "" { // "config" alone, or with a wrong second word
		if len(args) > 1 && isHelp(args[1]) {
			p.say(p.stdout, list)
			return exitOK
		}
		if len(args) > 1 && !strings.HasPrefix(args[1], "-") {
			var second []string
			for _, c := range commands {
				if rest, ok := strings.CutPrefix(c.name, word+" "); ok {
					second = append(second, rest)
				}
			}
			p.say(p.stderr, fmt.Sprintf("paythread %s: there is no %q%s\n", word, shorten(args[1]), suggestion(args[1], second)))
		}
		p.say(p.stderr, list)
		return exitUsage
	}
	var names []string
	for _, c := range commands {
		first, _, _ := strings.Cut(c.name, " ")
		names = append(names, first)
	}
	p.say(p.stderr, fmt.Sprintf("paythread: there is no command %q%s\n\"paythread help\" lists the commands.\n", shorten(word), suggestion(word, names)))
	return exitUsage
}

// say writes to the person. A terminal that is gone is nobody to tell.
func (p process) say(w io.Writer, text string) { _, _ = io.WriteString(w, text) }

func write(w io.Writer, data []byte) error {
	_, err := w.Write(data)
	return err
}

func isHelp(word string) bool {
	switch word {
	case "help", "-h", "-help", "--help":
		return true
	}
	return false
}

// pick finds the command that the first word or two name.
func pick(args []string) (command, []string, bool) {
	for _, c := range commands {
		words := strings.Fields(c.name)
		if len(args) >= len(words) && strings.Join(args[:len(words)], " ") == c.name {
			return c, args[len(words):], true
		}
	}
	return command{}, nil, false
}

// usage lists the commands, or those whose first word is group; nothing if
// there is none.
func usage(group string) string {
	var list strings.Builder
	w := tabwriter.NewWriter(&list, 0, 0, 2, ' ', 0)
	some := false
	for _, c := range commands {
		if group == "" || strings.HasPrefix(c.name, group+" ") {
			some = true
			_, _ = fmt.Fprintf(w, "  %s\t%s\n", c.name, c.short) // a strings.Builder takes everything
		}
	}
	_ = w.Flush() // the same
	if !some {
		return ""
	}
	head := "Paythread sends customers a link to pay by WhatsApp or SMS, and shows the agent each step.\n\nUsage: paythread COMMAND [flags]\n\n"
	if group != "" {
		head = "Usage: paythread " + group + " ...\n\n"
	}
	return head + list.String() + "\n\"paythread COMMAND -h\" says more about one.\n"
}

func (c command) usage() string {
	return strings.TrimSpace("paythread " + c.name + " " + c.synopsis)
}

// help is what -h prints.
func (c command) help(flags *flag.FlagSet) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: %s\n\n%s\n", c.usage(), c.long)
	var list strings.Builder
	w := tabwriter.NewWriter(&list, 0, 0, 2, ' ', 0)
	flags.VisitAll(func(f *flag.Flag) {
		operand, what := flag.UnquoteUsage(f)
		if f.DefValue != "" && f.DefValue != "false" {
			what += " (default " + f.DefValue + ")"
		}
		_, _ = fmt.Fprintf(w, "  %s\t%s\n", strings.TrimSpace("--"+f.Name+" "+operand), what) // a strings.Builder takes everything
	})
	_ = w.Flush() // the same
	if list.Len() > 0 {
		b.WriteString("\nFlags:\n" + list.String())
	}
	return b.String()
}

// spanFlag defines a flag that is written as the durations of the configuration
// are, days included.
func spanFlag(flags *flag.FlagSet, name string, otherwise time.Duration, usage string) *time.Duration {
	to := &spanValue{otherwise}
	flags.Var(to, name, usage)
	return &to.Duration
}

type spanValue struct{ time.Duration }

// Set takes what parseDuration reads.
func (v *spanValue) Set(s string) (err error) {
	v.Duration, err = parseDuration(s)
	return err
}

// String returns the duration as it would be written.
func (v *spanValue) String() string { return formatDuration(v.Duration) }

// configFlag defines --config and returns what loads it.
func configFlag(flags *flag.FlagSet) func(process) (*Config, error) {
	read := configReader(flags)
	return func(p process) (*Config, error) {
		c, _, err := p.reported(read(p))
		return c, err
	}
}

// configReader defines --config and returns what reads it, again and again if
// need be.
func configReader(flags *flag.FlagSet) func(process) (*Config, contents, error) {
	file := flags.String("config", "", "the configuration `FILE` (YAML)")
	once := pipes{}
	return func(p process) (*Config, contents, error) {
		if *file == "" {
			return nil, nil, usageError{"--config FILE is missing"}
		}
		return readConfig(*file, p.env, once)
	}
}

// reported prints all that is wrong with a configuration.
func (p process) reported(c *Config, read contents, err error) (*Config, contents, error) {
	var problems ConfigProblems
	if errors.As(err, &problems) {
		p.say(p.stderr, fmt.Sprintf("%s\n%s\n", problems.Error(), countOf(len(problems), "problem")))
		return nil, nil, errReported
	}
	return c, read, err
}

func countOf(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func configCheckCommand(flags *flag.FlagSet) action {
	load := configFlag(flags)
	return func(_ context.Context, p process) error {
		c, err := load(p)
		if err != nil {
			return err
		}
		senders := 0
		for _, m := range c.Merchants {
			senders += len(m.Senders)
		}
		for _, h := range c.Hints {
			p.say(p.stdout, "hint: "+h.String()+"\n")
		}
		return write(p.stdout, fmt.Appendf(nil, "The configuration is right: %s, %s.\n", countOf(len(c.Merchants), "merchant"), countOf(senders, "sender")))
	}
}

func keysNewCommand(flags *flag.FlagSet) action {
	dir := flags.String("dir", "", "the `DIR` where the keys lie; made if it is not there")
	return func(_ context.Context, p process) error {
		if *dir == "" {
			return usageError{"--dir DIR is missing"}
		}
		if err := os.MkdirAll(*dir, 0o700); err != nil {
			return err
		}
		current := filepath.Join(*dir, checkout.CurrentKeyFile)
		kid, err := checkout.NewKeyFile(current)
		if err == nil {
			return write(p.stdout, fmt.Appendf(nil, "Made key %s in %s.\n", kid, current))
		}
		if !errors.Is(err, os.ErrExist) {
			return err
		}
		if kid, err = checkout.Rotate(*dir, time.Now()); err != nil {
			return err
		}
		return write(p.stdout, fmt.Appendf(nil, "Made key %s in %s.\nThe key before it is in %s: keep it until %s.\n",
			kid, current, filepath.Join(*dir, checkout.PreviousKeyFile), time.Now().Add(checkout.PreviousKeyLife).UTC().Format(time.RFC3339)))
	}
}

// version is set by the linker in a release: -ldflags "-X main.version=1.2.3".
var version string

// versionLine names the build: the version, else what Go knows of the module,
// and the commit.
func versionLine() string {
	v, commit := version, ""
	if info, ok := debug.ReadBuildInfo(); ok {
		if v == "" {
			v = info.Main.Version
		}
		modified := false
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				commit = s.Value
			case "vcs.modified":
				modified = s.Value == "true"
			}
		}
		if commit != "" && modified {
			commit += " with changes"
		}
	}
	if v == "" {
		v = "(unknown)"
	}
	line := "paythread " + v
	if commit != "" {
		line += ", commit " + commit
	}
	return line + ", " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
}
