package cybersource

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// amount is in thousandths of the currency's unit, which is exact for every currency CyberSource takes.
type amount int64

const unit amount = 1000

// tooLarge is the documented amount that is always refused.
const tooLarge = 100_000_000_000 * unit

var (
	amountForm = regexp.MustCompile(`^(\d{1,12})(?:\.(\d{1,3}))?$`)
	currencies = strings.Fields(`AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD
		CAD CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF
		IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU
		MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP
		SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VES VND VUV WST XAF XCD XOF XPF YER ZAR ZMW ZWG`)
	noDecimals    = strings.Fields("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF")
	threeDecimals = strings.Fields("BHD IQD JOD KWD LYD OMR TND")
)

func validCurrency(code string) bool { return slices.Contains(currencies, code) }

func decimals(currency string) int {
	switch {
	case slices.Contains(noDecimals, currency):
		return 0
	case slices.Contains(threeDecimals, currency):
		return 3
	}
	return 2
}

// parseAmount reads a decimal string. It refuses signs, separators, more decimals than the currency
// has, and the documented amount that is too large.
func parseAmount(text, currency string) (amount, error) {
	m := amountForm.FindStringSubmatch(text)
	if m == nil {
		return 0, errors.New("is not an amount")
	}
	if len(m[2]) > decimals(currency) {
		return 0, fmt.Errorf("has more decimals than %s", currency)
	}
	whole, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return 0, errors.New("is not an amount")
	}
	fraction, err := strconv.ParseInt((m[2] + "000")[:3], 10, 64)
	if err != nil {
		return 0, errors.New("is not an amount")
	}
	a := amount(whole)*unit + amount(fraction)
	if a >= tooLarge {
		return 0, errors.New("is too large")
	}
	return a, nil
}

// in writes the amount with the currency's own number of decimals.
func (a amount) in(currency string) string {
	whole, fraction := int64(a/unit), fmt.Sprintf("%03d", int64(a%unit))
	if n := decimals(currency); n > 0 {
		return fmt.Sprintf("%d.%s", whole, fraction[:n])
	}
	return strconv.FormatInt(whole, 10)
}
