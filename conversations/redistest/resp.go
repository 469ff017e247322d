package redistest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// maxBulk and maxElements are Redis's own limits. A length beyond them means
// that the stream is not what it seems, and memory is not asked for it.
const (
	maxBulk     = 512 << 20
	maxElements = 1 << 20
)

// errNotArray says that a request is not an array, so that nothing is known
// about what follows. Nothing of it was read.
var errNotArray = errors.New("the request is not a RESP array")

// readCommand reads one request, an array of bulk strings. raw is all of it as
// it came; args are empty for an empty array, which Redis does not answer.
func readCommand(r *bufio.Reader) (raw []byte, args []string, err error) {
	if first, err := r.Peek(1); err != nil {
		return nil, nil, err
	} else if first[0] != '*' {
		return nil, nil, errNotArray
	}
	var buf bytes.Buffer
	_, count, err := readHeader(r, &buf)
	if err != nil {
		return nil, nil, err
	}
	type span struct{ from, to int }
	var spans []span
	for range count {
		kind, size, err := readHeader(r, &buf)
		if err != nil {
			return nil, nil, err
		}
		if kind != '$' || size < 0 {
			return nil, nil, fmt.Errorf("an argument has type %q and length %d, want a bulk string", kind, size)
		}
		from := buf.Len()
		if err := readBulk(r, &buf, size); err != nil {
			return nil, nil, err
		}
		spans = append(spans, span{from, from + int(size)})
	}
	raw = buf.Bytes()
	for _, s := range spans {
		args = append(args, string(raw[s.from:s.to]))
	}
	return raw, args, nil
}

// readReply reads one whole reply of RESP2 or RESP3 as it came. A push is not
// the answer to any command, and its bytes begin with '>'.
func readReply(r *bufio.Reader) ([]byte, error) {
	var buf bytes.Buffer
	for left := int64(1); left > 0; {
		kind, size, err := readHeader(r, &buf)
		if err != nil {
			return nil, err
		}
		switch kind {
		case '+', '-', ':', '_', '#', ',', '(':
			left--
		case '$', '=', '!':
			left--
			if size >= 0 {
				if err := readBulk(r, &buf, size); err != nil {
					return nil, err
				}
			}
		case '*', '~', '>':
			left += max(size, 0) - 1
		case '%':
			left += 2*max(size, 0) - 1
		case '|':
			left += 2 * max(size, 0) // an attribute stands before the value it describes
		default:
			return nil, fmt.Errorf("a reply has the unknown type %q", kind)
		}
	}
	return buf.Bytes(), nil
}

// readHeader reads a line and returns its type and, where the type has one,
// its length (-1 for null).
func readHeader(r *bufio.Reader, buf *bytes.Buffer) (kind byte, size int64, err error) {
	line, err := r.ReadBytes('\n')
	buf.Write(line)
	if err != nil {
		return 0, 0, cut(err)
	}
	if len(line) < 3 || line[len(line)-2] != '\r' {
		return 0, 0, fmt.Errorf("a line of %d bytes is not RESP", len(line))
	}
	kind = line[0]
	limit := int64(maxElements)
	switch kind {
	case '$', '=', '!':
		limit = maxBulk
	case '*', '~', '>', '%', '|':
	default:
		return kind, 0, nil
	}
	size, err = strconv.ParseInt(string(line[1:len(line)-2]), 10, 64)
	if err != nil || size < -1 || size > limit {
		return 0, 0, fmt.Errorf("a length of type %q is not a number up to %d", kind, limit)
	}
	return kind, size, nil
}

// readBulk reads a bulk string's bytes and the line end after them.
func readBulk(r *bufio.Reader, buf *bytes.Buffer, size int64) error {
	if _, err := io.CopyN(buf, r, size+2); err != nil {
		return cut(err)
	}
	if !bytes.HasSuffix(buf.Bytes(), []byte("\r\n")) {
		return errors.New("a bulk string does not end where it said")
	}
	return nil
}

// cut tells an end inside a value from one between two.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
