package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode"
)

// merchantSettings returns what a merchant is configured with: a text for each
// key, which tells one value from another. It holds secrets and goes nowhere but
// into keyed digests.
func merchantSettings(m *MerchantConfig) map[string]string {
	settings := map[string]string{}
	v := reflect.ValueOf(m).Elem()
	for i := range v.NumField() {
		name, of := settingName(v.Type().Field(i).Name), v.Field(i)
		if of.Kind() != reflect.Slice || of.Type().Elem().Kind() != reflect.Pointer {
			settings[name] = plainText(of)
			continue
		}
		for j := range of.Len() {
			element := of.Index(j).Elem()
			settings[name+"."+element.Field(0).String()] = plainText(element) // its id, name or locale
		}
	}
	return settings
}

// settingName is the key of a field of a merchant.
func settingName(field string) string {
	switch field {
	case "Sandbox":
		return "environment"
	case "PublicURL":
		return "public_url"
	case "APIKeys":
		return "api_keys"
	}
	var b strings.Builder
	for i, r := range field {
		if unicode.IsUpper(r) && i > 0 && !unicode.IsUpper(rune(field[i-1])) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// plainText writes a value whole. It asks no type how it wants to be shown,
// because those with secrets show none.
func plainText(v reflect.Value) string {
	var b strings.Builder
	writePlain(&b, v)
	return b.String()
}

func writePlain(b *strings.Builder, v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		fmt.Fprintf(b, "%q,", v.String())
	case reflect.Bool:
		fmt.Fprintf(b, "%t,", v.Bool())
	case reflect.Int, reflect.Int64:
		fmt.Fprintf(b, "%d,", v.Int())
	case reflect.Float64:
		fmt.Fprintf(b, "%g,", v.Float())
	case reflect.Slice:
		for i := range v.Len() {
			writePlain(b, v.Index(i))
		}
		b.WriteByte(';')
	case reflect.Map:
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, k := range keys {
			writePlain(b, k)
			writePlain(b, v.MapIndex(k))
		}
		b.WriteByte(';')
	case reflect.Struct:
		for i := range v.NumField() {
			writePlain(b, v.Field(i))
		}
		b.WriteByte(';')
	case reflect.Pointer:
		if v.Type() != reflect.TypeFor[*MerchantConfig]() && !v.IsNil() { // a sender points back
			writePlain(b, v.Elem())
		}
	default:
		panic("gateway: a setting of kind " + v.Kind().String() + " cannot be told from another")
	}
}
