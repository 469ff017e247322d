package main

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
)

// redacted stands wherever a secret would have been printed.
const redacted = "[redacted]"

// Secret is a value that must never be printed: every verb of fmt, every slog
// handler and every encoder that asks the type shows "[redacted]" instead.
// Reveal is the one way to the value, so that a search finds each use.
type Secret string

// Reveal returns the value itself.
func (s Secret) Reveal() string { return string(s) }

// String returns "[redacted]", or nothing for an empty secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// Format writes what String returns, whatever the verb: without it a verb that
// does not fit a string would print the value in its complaint.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) } // fmt keeps no error

// LogValue returns what String returns.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns what String returns, for encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Settings are what one provider or platform was configured with, by the names
// of its Registration. Some are secrets, so only the names are ever printed.
type Settings map[string]string

// String returns the names that are set.
func (s Settings) String() string {
	return "[" + strings.Join(slices.Sorted(maps.Keys(s)), " ") + "]"
}

// Format writes what String returns, whatever the verb.
func (s Settings) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) } // fmt keeps no error

// LogValue returns what String returns.
func (s Settings) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns what String returns, for encoders.
func (s Settings) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
