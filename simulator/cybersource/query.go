package cybersource

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// matcher says whether a transaction answers a query.
type matcher func(*record) bool

// queryFields are the fields that a query may name.
var queryFields = map[string]func(*record) string{
	"id":                              func(r *record) string { return r.ID },
	"merchantId":                      func(r *record) string { return r.Merchant },
	"clientReferenceInformation.code": func(r *record) string { return r.Code },
	"applicationInformation.applications.reconciliationId": func(r *record) string { return r.reconciliationID },
	"orderInformation.billTo.email":                        func(r *record) string { return r.billTo.Email },
	"orderInformation.amountDetails.totalAmount":           func(r *record) string { return r.requested.in(r.Currency) },
	"orderInformation.amountDetails.currency":              func(r *record) string { return r.Currency },
	"paymentInformation.card.suffix":                       func(r *record) string { return r.card.suffix() },
	"paymentInformation.card.prefix":                       func(r *record) string { return r.card.prefix() },
	"processorInformation.approvalCode":                    func(r *record) string { return r.approvalCode },
	"submitTimeUtc":                                        func(r *record) string { return stamp(r.Time) },
}

var errQuery = errors.New("the query could not be read")

// parseQuery reads the search language: field:value, field:(a OR b), field:[from TO to} joined by AND
// and OR, with parentheses. AND binds closer. Date maths is in zone.
func parseQuery(text string, now time.Time, zone *time.Location) (matcher, error) {
	p := &queryParser{text: text, now: now, zone: zone}
	m, err := p.either()
	if err != nil {
		return nil, err
	}
	if p.skip(); p.pos < len(p.text) {
		return nil, fmt.Errorf("%w after %d characters", errQuery, p.pos)
	}
	return m, nil
}

type queryParser struct {
	text  string
	pos   int
	depth int
	now   time.Time
	zone  *time.Location
}

// maxQueryDepth bounds nested parentheses.
const maxQueryDepth = 20

func (p *queryParser) skip() {
	for p.pos < len(p.text) && (p.text[p.pos] == ' ' || p.text[p.pos] == '\n' || p.text[p.pos] == '\t') {
		p.pos++
	}
}

// word takes the next word if it is w.
func (p *queryParser) word(w string) bool {
	p.skip()
	rest := p.text[p.pos:]
	if !strings.HasPrefix(rest, w) {
		return false
	}
	if len(rest) > len(w) && !strings.ContainsRune(" \t\n(", rune(rest[len(w)])) {
		return false
	}
	p.pos += len(w)
	return true
}

func (p *queryParser) symbol(c byte) bool {
	p.skip()
	if p.pos < len(p.text) && p.text[p.pos] == c {
		p.pos++
		return true
	}
	return false
}

func (p *queryParser) either() (matcher, error) {
	left, err := p.both()
	for err == nil && p.word("OR") {
		var right matcher
		if right, err = p.both(); err == nil {
			a := left
			left = func(r *record) bool { return a(r) || right(r) }
		}
	}
	return left, err
}

func (p *queryParser) both() (matcher, error) {
	left, err := p.term()
	for err == nil && p.word("AND") {
		var right matcher
		if right, err = p.term(); err == nil {
			a := left
			left = func(r *record) bool { return a(r) && right(r) }
		}
	}
	return left, err
}

func (p *queryParser) term() (matcher, error) {
	if p.symbol('(') {
		if p.depth++; p.depth > maxQueryDepth {
			return nil, errQuery
		}
		m, err := p.either()
		if err != nil {
			return nil, err
		}
		if !p.symbol(')') {
			return nil, fmt.Errorf("%w: a parenthesis is not closed", errQuery)
		}
		p.depth--
		return m, nil
	}
	p.skip()
	start := p.pos
	for p.pos < len(p.text) && !strings.ContainsRune(": ()[]{}", rune(p.text[p.pos])) {
		p.pos++
	}
	name := p.text[start:p.pos]
	read, known := queryFields[name]
	if !known {
		return nil, fmt.Errorf("%w: a field is not known", errQuery)
	}
	if p.pos >= len(p.text) || p.text[p.pos] != ':' {
		return nil, fmt.Errorf("%w: no colon after a field", errQuery)
	}
	p.pos++
	p.skip()
	switch {
	case p.symbol('('):
		return p.list(read)
	case p.symbol('['):
		return p.between(name, true)
	case p.symbol('{'):
		return p.between(name, false)
	}
	v, err := p.value()
	return func(r *record) bool { return matchText(read(r), v) }, err
}

// value is a bare word or a quoted text.
func (p *queryParser) value() (string, error) {
	if p.symbol('"') {
		end := strings.IndexByte(p.text[p.pos:], '"')
		if end < 0 {
			return "", fmt.Errorf("%w: a quotation is not closed", errQuery)
		}
		v := p.text[p.pos : p.pos+end]
		p.pos += end + 1
		return v, nil
	}
	p.skip()
	start := p.pos
	for p.pos < len(p.text) && !strings.ContainsRune(" \t\n()[]{}\"", rune(p.text[p.pos])) {
		p.pos++
	}
	if p.pos == start {
		return "", fmt.Errorf("%w: a value is missing", errQuery)
	}
	return p.text[start:p.pos], nil
}

func (p *queryParser) list(read func(*record) string) (matcher, error) {
	var values []string
	for {
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		values = append(values, v)
		if p.symbol(')') {
			break
		}
		if !p.word("OR") {
			return nil, fmt.Errorf("%w: OR is missing in a list", errQuery)
		}
	}
	return func(r *record) bool {
		return slices.ContainsFunc(values, func(v string) bool { return matchText(read(r), v) })
	}, nil
}

// matchText compares without case; a trailing * matches a prefix.
func matchText(have, want string) bool {
	if prefix, cut := strings.CutSuffix(want, "*"); cut {
		return len(have) >= len(prefix) && strings.EqualFold(have[:len(prefix)], prefix)
	}
	return strings.EqualFold(have, want)
}

// between reads a range, which only times and amounts have.
func (p *queryParser) between(name string, includeFrom bool) (matcher, error) {
	from, err := p.value()
	if err != nil {
		return nil, err
	}
	if !p.word("TO") {
		return nil, fmt.Errorf("%w: TO is missing in a range", errQuery)
	}
	to, err := p.value()
	if err != nil {
		return nil, err
	}
	includeTo := p.symbol(']')
	if !includeTo && !p.symbol('}') {
		return nil, fmt.Errorf("%w: a range is not closed", errQuery)
	}
	var read func(*record) int64
	var bound func(string) (int64, error)
	switch name {
	case "submitTimeUtc":
		read = func(r *record) int64 { return r.Time.UnixMilli() }
		bound = func(v string) (int64, error) {
			t, err := parseTime(v, p.now, p.zone)
			return t.UnixMilli(), err
		}
	case "orderInformation.amountDetails.totalAmount":
		read = func(r *record) int64 { return int64(r.requested) }
		bound = func(v string) (int64, error) {
			a, err := parseAmount(v, "TND") // three decimals, which takes all
			return int64(a), err
		}
	default:
		return nil, fmt.Errorf("%w: the field has no ranges", errQuery)
	}
	var least, most int64
	openFrom, openTo := from == "*", to == "*"
	if !openFrom {
		if least, err = bound(from); err != nil {
			return nil, fmt.Errorf("%w: a bound of a range", errQuery)
		}
	}
	if !openTo {
		if most, err = bound(to); err != nil {
			return nil, fmt.Errorf("%w: a bound of a range", errQuery)
		}
	}
	return func(r *record) bool {
		v := read(r)
		return (openFrom || v > least || includeFrom && v == least) && (openTo || v < most || includeTo && v == most)
	}, nil
}

var dateStep = regexp.MustCompile(`^(?:/([A-Z]+)|([+-]\d{1,6})([A-Z]+))`)

// parseTime reads NOW with date maths (NOW/DAY-1DAYS, NOW/HOUR+2HOURS), epoch milliseconds, or RFC 3339.
func parseTime(text string, now time.Time, zone *time.Location) (time.Time, error) {
	rest, maths := strings.CutPrefix(text, "NOW")
	if !maths {
		if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
			return time.UnixMilli(ms), nil
		}
		return time.Parse(time.RFC3339, text)
	}
	t := now.In(zone)
	for rest != "" {
		m := dateStep.FindStringSubmatch(rest)
		if m == nil {
			return time.Time{}, errQuery
		}
		rest = rest[len(m[0]):]
		var err error
		if m[1] != "" {
			t, err = roundDown(t, m[1])
		} else {
			n, convErr := strconv.Atoi(m[2])
			if convErr != nil {
				return time.Time{}, errQuery
			}
			t, err = addUnits(t, n, m[3])
		}
		if err != nil {
			return time.Time{}, err
		}
	}
	return t, nil
}

func roundDown(t time.Time, unit string) (time.Time, error) {
	y, mo, d := t.Date()
	h, mi, sec := t.Clock()
	switch strings.TrimSuffix(unit, "S") {
	case "YEAR":
		return time.Date(y, 1, 1, 0, 0, 0, 0, t.Location()), nil
	case "MONTH":
		return time.Date(y, mo, 1, 0, 0, 0, 0, t.Location()), nil
	case "DAY":
		return time.Date(y, mo, d, 0, 0, 0, 0, t.Location()), nil
	case "HOUR":
		return time.Date(y, mo, d, h, 0, 0, 0, t.Location()), nil
	case "MINUTE":
		return time.Date(y, mo, d, h, mi, 0, 0, t.Location()), nil
	case "SECOND":
		return time.Date(y, mo, d, h, mi, sec, 0, t.Location()), nil
	}
	return time.Time{}, errQuery
}

func addUnits(t time.Time, n int, unit string) (time.Time, error) {
	switch strings.TrimSuffix(unit, "S") {
	case "YEAR":
		return t.AddDate(n, 0, 0), nil
	case "MONTH":
		return t.AddDate(0, n, 0), nil
	case "DAY":
		return t.AddDate(0, 0, n), nil
	case "HOUR":
		return t.Add(time.Duration(n) * time.Hour), nil
	case "MINUTE":
		return t.Add(time.Duration(n) * time.Minute), nil
	case "SECOND":
		return t.Add(time.Duration(n) * time.Second), nil
	}
	return time.Time{}, errQuery
}
