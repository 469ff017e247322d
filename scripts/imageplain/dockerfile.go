package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// instruction is one line of a Dockerfile, its continuations joined.
type instruction struct {
	line  int
	name  string
	flags map[string]string // --from=build
	text  string            // what follows the flags
}

// fail says what is wrong with an instruction.
func (i instruction) fail(format string, args ...any) error {
	return fmt.Errorf("Dockerfile:%d: %s "+format, append([]any{i.line, i.name}, args...)...)
}

// known are the instructions that the plain steps can do, each with the flags
// that they understand.
var known = map[string][]string{
	"FROM": {"platform"}, "WORKDIR": nil, "COPY": {"from"}, "ARG": nil, "RUN": nil,
	"LABEL": nil, "ENV": nil, "USER": nil, "EXPOSE": nil, "ENTRYPOINT": nil,
}

// parse reads a Dockerfile.
func parse(text string) ([]instruction, error) {
	var all []instruction
	var open *instruction // continued on the next line
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") || line == "" {
			continue
		}
		body, continued := strings.CutSuffix(line, "\\")
		if open == nil {
			name, rest, _ := strings.Cut(body, " ")
			all = append(all, instruction{line: n + 1, name: strings.ToUpper(name), flags: map[string]string{}, text: rest})
			open = &all[len(all)-1]
		} else {
			open.text += " " + body
		}
		if !continued {
			open = nil
		}
	}
	for n := range all {
		if err := all[n].readFlags(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (i *instruction) readFlags() error {
	allowed, is := known[i.name]
	if !is {
		return i.fail("is nothing that the plain steps can do: teach them, or do without")
	}
	i.text = strings.TrimSpace(i.text)
	for strings.HasPrefix(i.text, "--") {
		flag, rest, _ := strings.Cut(i.text, " ")
		name, value, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
		understood := false
		for _, a := range allowed {
			understood = understood || a == name
		}
		if !understood {
			return i.fail("has the flag --%s, which the plain steps do not know", name)
		}
		i.flags[name] = value
		i.text = strings.TrimSpace(rest)
	}
	return nil
}

// pairs reads NAME=VALUE NAME="VALUE" ....
func (i instruction) pairs(values map[string]string) (map[string]string, error) {
	found := map[string]string{}
	rest := i.text
	for rest != "" {
		m := pairForm.FindStringSubmatch(rest)
		if m == nil {
			return nil, i.fail("%q is not NAME=VALUE", rest)
		}
		value := m[2]
		if strings.HasPrefix(value, `"`) {
			if err := json.Unmarshal([]byte(value), &value); err != nil {
				return nil, i.fail("%s is not a quoted text", m[2])
			}
		}
		found[m[1]] = expand(value, values)
		rest = strings.TrimSpace(rest[len(m[0]):])
	}
	return found, nil
}

var (
	pairForm     = regexp.MustCompile(`^([A-Za-z0-9_.-]+)=("(?:[^"\\]|\\.)*"|[^\s"]*)`)
	variableForm = regexp.MustCompile(`\$\{?([A-Z_]+)\}?`)
)

// expand puts in the values of variables. One without a value is empty, as in
// an engine.
func expand(text string, values map[string]string) string {
	return variableForm.ReplaceAllStringFunc(text, func(v string) string {
		return values[strings.Trim(v, "${}")]
	})
}
