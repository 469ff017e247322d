package conversations

import (
	"maps"
	"slices"
	"unicode/utf8"
)

// The most that a merchant may add to a payment request for its own systems.
// It lies in the payment request, which every commit writes.
const (
	maxExtra      = 20
	maxExtraKey   = 40
	maxExtraValue = 500
)

// CheckExtra checks the merchant's own data of a payment request. The error is
// an *Error about "extra" or, by its name, one of its entries.
func CheckExtra(extra map[string]string) error {
	if len(extra) > maxExtra {
		return Invalid("extra", "%d entries are too many, the most is %d", len(extra), maxExtra)
	}
	for _, name := range slices.Sorted(maps.Keys(extra)) {
		if name == "" {
			return Invalid("extra", "the name of an entry is empty")
		}
		if err := checkText("extra", name, maxExtraKey); err != nil {
			return Invalid("extra", "the name %q cannot be used: use 1 to %d characters, none of them a control character", clip(name, maxExtraKey), maxExtraKey)
		}
		// Line breaks and the like are fine in a value: nobody but the
		// merchant's own systems reads it.
		if n := utf8.RuneCountInString(extra[name]); n > maxExtraValue {
			return Invalid("extra."+name, "%d characters are too many, the most is %d", n, maxExtraValue)
		}
	}
	return nil
}
