package conversations

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/nyaruka/phonenumbers"
)

// ParsePhone reads a phone number in international form, or in the national
// form of a country (ISO 3166 alpha-2), and returns its canonical E.164 form
// and its national form for people. It takes only numbers that exist by the
// country's plan and at which a person may get messages. The error is an *Error
// about "phone".
func ParsePhone(number, country string) (canonical, national string, err error) {
	canonical, n, err := parsePhone(number, country)
	if err != nil {
		return "", "", err
	}
	return canonical, phonenumbers.Format(n, phonenumbers.NATIONAL), nil
}

// parsePhone is ParsePhone without the national form, which takes as long again
// and which nobody needs of the numbers in webhooks.
func parsePhone(number, country string) (canonical string, n *phonenumbers.PhoneNumber, err error) {
	n, perr := phonenumbers.Parse(number, strings.ToUpper(country))
	if perr != nil || len(number) > 40 {
		return "", nil, Invalid("phone", "this is not a phone number of %s; write it as it is dialled there, or with + and the country code", orAnywhere(country))
	}
	// The library reads letters as keys, or skips them: a letter O for a zero
	// would be somebody else's number. It drops extensions.
	if strings.ContainsFunc(number, unicode.IsLetter) || n.GetExtension() != "" {
		return "", nil, Invalid("phone", "write the phone number with digits only, without letters or an extension")
	}
	if !isSubscriber(n) {
		// The old spellings of some countries are not valid numbers as written.
		fixed := respell(phonenumbers.Format(n, phonenumbers.E164))
		m, ferr := phonenumbers.Parse(fixed, "")
		if ferr != nil || !isSubscriber(m) {
			return "", nil, Invalid("phone", "there is no such phone number in %s; check its digits", orAnywhere(phonenumbers.GetRegionCodeForNumber(n), country))
		}
		n = m
	}
	if !slices.Contains(messageable, phonenumbers.GetNumberType(n)) {
		return "", nil, Invalid("phone", "nobody gets messages at this kind of number (toll-free, premium-rate, shared-cost and the like); use the customer's own")
	}
	written := phonenumbers.Format(n, phonenumbers.E164)
	if canonical = respell(written); canonical != written {
		if m, ferr := phonenumbers.Parse(canonical, ""); ferr == nil {
			n = m
		}
	}
	return canonical, n, nil
}

// isSubscriber tells whether a number is possible, valid and not one of the
// networks' own short numbers.
func isSubscriber(n *phonenumbers.PhoneNumber) bool {
	return phonenumbers.IsPossibleNumber(n) && phonenumbers.IsValidNumber(n) &&
		len(phonenumbers.GetNationalSignificantNumber(n)) >= shortest[n.GetCountryCode()]
}

// shortest are the fewest digits of a subscriber's number, by country code,
// where the plan lists shorter numbers of the networks' services among the
// mobile ones: in South Africa 082 123 is "valid".
var shortest = map[int32]int{27: 9}

// messageable are the kinds of number that a person may be written to at. A
// fixed line is one: WhatsApp accounts are registered on them, too.
var messageable = []phonenumbers.PhoneNumberType{
	phonenumbers.MOBILE, phonenumbers.FIXED_LINE, phonenumbers.FIXED_LINE_OR_MOBILE, phonenumbers.VOIP, phonenumbers.PERSONAL_NUMBER,
}

func orAnywhere(countries ...string) string {
	for _, c := range countries {
		if c != "" {
			return strings.ToUpper(c)
		}
	}
	return "any country"
}

// spellings are the numbers that people, carriers and WhatsApp write in
// several ways, and the one way that is kept: Brazil's mobile numbers with the
// ninth digit, Mexico's without the 1, Argentina's with the 9.
var spellings = []struct {
	written *regexp.Regexp
	kept    string
}{
	{regexp.MustCompile(`^\+55([1-9]{2})([6-9]\d{7})$`), "+55${1}9${2}"},
	{regexp.MustCompile(`^\+521(\d{10})$`), "+52${1}"},
	{regexp.MustCompile(`^\+54(?:0)?([1-8]\d{9})$`), "+549${1}"},
}

func respell(e164 string) string {
	for _, s := range spellings {
		if s.written.MatchString(e164) {
			return s.written.ReplaceAllString(e164, s.kept)
		}
	}
	return e164
}

// canonicalPhone returns the canonical form of a number that a provider
// reported, with or without its plus. Numbers that no plan knows are kept as
// they are, since somebody evidently writes from them.
func canonicalPhone(number string) string {
	digits := "+" + strings.TrimLeft(strings.TrimSpace(number), "+0")
	canonical, _, err := parsePhone(digits, "")
	if err != nil {
		return respell(digits)
	}
	return canonical
}

// countryOf returns the country (ISO 3166 alpha-2) that a canonical number
// belongs to by its plan, or "".
func countryOf(phone string) string {
	n, err := phonenumbers.Parse(phone, "")
	if err != nil {
		return ""
	}
	return phonenumbers.GetRegionCodeForNumber(n)
}

// canonicalAddresses returns a provider's addresses in the form in which they
// are claimed.
func canonicalAddresses(addresses []Address) []Address {
	out := make([]Address, 0, len(addresses))
	for _, a := range addresses {
		if a.Value == "" {
			continue
		}
		if a.Kind == AddressPhone {
			a.Value = canonicalPhone(a.Value)
		}
		out = append(out, a)
	}
	slices.SortStableFunc(out, func(a, b Address) int {
		return cmp.Compare(slices.Index(addressOrder, a.Kind), slices.Index(addressOrder, b.Kind))
	})
	return out
}

// addressOrder is the order in which addresses identify a contact.
var addressOrder = []AddressKind{AddressPhone, AddressUser, AddressParentUser}
