package redistest

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// encode is a request as a client sends it.
func encode(command []string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(command))
	for _, arg := range command {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(arg), arg)
	}
	return []byte(b.String())
}

var helloID = regexp.MustCompile(`(\$2\r\nid\r\n):\d+`)

func withoutID(reply []byte) []byte { return helloID.ReplaceAll(reply, []byte("$1")) }

func TestReadCommand(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in string
		want     []string
		fails    bool
	}{
		{"one", "*1\r\n$4\r\nPING\r\n", []string{"PING"}, false},
		{"line end inside", "*2\r\n$3\r\nSET\r\n$4\r\na\r\nb\r\n", []string{"SET", "a\r\nb"}, false},
		{"empty argument", "*2\r\n$3\r\nGET\r\n$0\r\n\r\n", []string{"GET", ""}, false},
		{"empty array", "*0\r\n", nil, false},
		{"null array", "*-1\r\n", nil, false},
		{"inline", "PING\r\n", nil, true},
		{"number inside", "*1\r\n:1\r\n", nil, true},
		{"null inside", "*1\r\n$-1\r\n", nil, true},
		{"length that is none", "*x\r\n", nil, true},
		{"length beyond the limit", "*1\r\n$536870913\r\n", nil, true},
		{"too many", "*1048577\r\n", nil, true},
		{"cut short", "*1\r\n$4\r\nPI", nil, true},
		{"bulk too long for its length", "*1\r\n$2\r\nPING\r\n", nil, true},
		{"line without return", "*1\n$4\nPING\n", nil, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			raw, got, err := readCommand(bufio.NewReader(strings.NewReader(tt.in + "rest")))
			if tt.fails {
				if err == nil {
					t.Errorf("got %q, want an error", got)
				}
				return
			}
			if err != nil || !slices.Equal(got, tt.want) || string(raw) != tt.in {
				t.Errorf("got %q (%q), %v, want %q", got, raw, err, tt.want)
			}
		})
	}
}

// replies is one of each kind; the names are RESP3's.
var replies = map[string]string{
	"simple string":  "+OK\r\n",
	"simple error":   "-ERR no\r\n",
	"integer":        ":-7\r\n",
	"bulk":           "$4\r\na\r\nb\r\n",
	"empty bulk":     "$0\r\n\r\n",
	"null bulk":      "$-1\r\n",
	"null array":     "*-1\r\n",
	"null":           "_\r\n",
	"true":           "#t\r\n",
	"double":         ",-inf\r\n",
	"big number":     "(3492890328409238509324850943850943825024385\r\n",
	"bulk error":     "!5\r\nERR x\r\n",
	"verbatim":       "=8\r\ntxt:some\r\n",
	"empty array":    "*0\r\n",
	"nested array":   "*2\r\n*1\r\n:1\r\n*2\r\n$1\r\na\r\n_\r\n",
	"map":            "%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n:2\r\n",
	"empty map":      "%0\r\n",
	"set":            "~2\r\n:1\r\n:2\r\n",
	"push":           ">2\r\n$7\r\nmessage\r\n+x\r\n",
	"with attribute": "|1\r\n+ttl\r\n:9\r\n*1\r\n:1\r\n",
}

func TestReadReply(t *testing.T) {
	t.Parallel()
	for name, in := range replies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := bufio.NewReader(strings.NewReader(in + "+next\r\n"))
			if got, err := readReply(r); err != nil || string(got) != in {
				t.Errorf("got %q, %v, want %q", got, err, in)
			}
			if next, err := readReply(r); err != nil || string(next) != "+next\r\n" {
				t.Errorf("the next one: got %q, %v", next, err)
			}
			if got, err := readReply(bufio.NewReader(strings.NewReader(in[:len(in)-1]))); err == nil {
				t.Errorf("cut short: got %q, want an error", got)
			}
		})
	}
	if got, err := readReply(bufio.NewReader(strings.NewReader("?what\r\n"))); err == nil {
		t.Errorf("an unknown type: got %q, want an error", got)
	}
}

// Whatever comes, what is passed on is exactly what was read.
func FuzzReadReply(f *testing.F) {
	for _, in := range replies {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		src := bytes.NewReader(in)
		r := bufio.NewReader(src)
		var got []byte
		for {
			raw, err := readReply(r)
			if err != nil {
				break
			}
			got = append(got, raw...)
		}
		if !bytes.HasPrefix(in, got) {
			t.Errorf("read %q from %q", got, in)
		}
	})
}

func FuzzReadCommand(f *testing.F) {
	f.Add([]byte("*1\r\n$4\r\nPING\r\n"))
	f.Add([]byte("*2\r\n$3\r\nGET\r\n$0\r\n\r\n*0\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bufio.NewReader(bytes.NewReader(in))
		var got []byte
		for {
			raw, command, err := readCommand(r)
			if err != nil {
				break
			}
			for _, arg := range command {
				if !bytes.Contains(raw, []byte(arg)) {
					t.Errorf("argument %q is not in %q", arg, raw)
				}
			}
			got = append(got, raw...)
		}
		if !bytes.HasPrefix(in, got) {
			t.Errorf("read %q from %q", got, in)
		}
	})
}
