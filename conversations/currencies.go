package conversations

import "strings"

// currencies are the codes of ISO 4217, list one, by their number of decimals:
// as published on 12 May 2025 (that is with XCG and ZWG, Amendments 176 and
// 177), less BGN, which the euro replaced on 1 January 2026. (The Unicode
// locale data differ from the standard in the decimals of several, and know
// codes of the past, so they are not used here.) Left out are the codes that
// nobody can be charged in: metals (XAU, XAG, XPT, XPD), bond units (XBA to
// XBD), units of account (XAD, XDR, XSU, XUA), tests (XTS), no currency (XXX).
var currencies = currencyTable(map[int]string{
	0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
	2: `AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD
		CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP
		GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK
		LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO
		NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS
		SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST
		XCD XCG YER ZAR ZMW ZWG`,
	3: "BHD IQD JOD KWD LYD OMR TND",
	4: "CLF UYW",
})

func currencyTable(byDigits map[int]string) map[string]int {
	table := map[string]int{}
	for digits, codes := range byDigits {
		for _, code := range strings.Fields(codes) {
			table[code] = digits
		}
	}
	return table
}

// withdrawnCurrencies are codes that systems still hold, and what took their
// place, for whoever sends one.
var withdrawnCurrencies = map[string]string{
	"ANG": "XCG", "BGN": "EUR", "BYR": "BYN", "CUC": "CUP", "DEM": "EUR", "EEK": "EUR", "FRF": "EUR", "HRK": "EUR", "ITL": "EUR",
	"LTL": "EUR", "LVL": "EUR", "MRO": "MRU", "NLG": "EUR", "SKK": "EUR", "SLL": "SLE", "STD": "STN", "VEF": "VES", "ZMK": "ZMW",
	"ZWL": "ZWG",
}

// CurrencyDigits returns the number of decimals of an ISO 4217 code in upper
// case, and false if there is no such currency (any more).
func CurrencyDigits(code string) (int, bool) {
	digits, ok := currencies[code]
	return digits, ok
}

// CurrencySuccessor returns what took the place of a code that is not in use
// any more, or "".
func CurrencySuccessor(code string) string { return withdrawnCurrencies[code] }

// CheckCurrency refuses what is no ISO 4217 code of a currency in use. The
// error is an *Error about field, and names the successor of a withdrawn code.
func CheckCurrency(field, code string) error {
	if _, ok := currencies[code]; ok {
		return nil
	}
	if successor := CurrencySuccessor(code); successor != "" {
		return Invalid(field, "%s is no ISO 4217 currency code any more; its successor is %s", code, successor)
	}
	return Invalid(field, "%q is not an ISO 4217 currency code, for example \"ZAR\"", clip(code, 12))
}
