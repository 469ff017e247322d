package main

import (
	"fmt"
	"regexp"
	"slices"
	"testing"

	"go.yaml.in/yaml/v3"
)

// yamlToJSON reads YAML as a JSON document: numbers are float64.
func yamlToJSON(t *testing.T, data []byte) map[string]any {
	t.Helper()
	var doc map[string]any
	if err := yaml.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	return floats(doc).(map[string]any)
}

func floats(v any) any {
	switch v := v.(type) {
	case int:
		return float64(v)
	case []any:
		for i := range v {
			v[i] = floats(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = floats(v[k])
		}
	}
	return v
}

// schemaProblems holds a document against a schema, with the keywords that
// ours uses; an unknown keyword is a problem, so that none goes unchecked.
func schemaProblems(schema map[string]any, doc any, path string) []string {
	problems, _ := validate(schema, doc, path)
	return problems
}

// validate returns the problems and the properties that the schema evaluated.
func validate(schema map[string]any, doc any, path string) ([]string, []string) {
	var problems, evaluated []string
	say := func(format string, args ...any) {
		problems = append(problems, path+": "+fmt.Sprintf(format, args...))
	}
	object, isObject := doc.(map[string]any)
	for keyword, rule := range schema {
		switch keyword {
		case "$schema", "title", "description", "default", "additionalProperties", "unevaluatedProperties", "then":
		case "type":
			if !isOfType(rule, doc) {
				say("%v is not of type %v", doc, rule)
			}
		case "enum":
			if !slices.Contains(rule.([]any), doc) {
				say("%v is none of %v", doc, rule)
			}
		case "const":
			if doc != rule {
				say("%v is not %v", doc, rule)
			}
		case "pattern":
			if s, ok := doc.(string); ok && !regexp.MustCompile(rule.(string)).MatchString(s) {
				say("%q does not match %v", s, rule)
			}
		case "minimum":
			if n, ok := doc.(float64); ok && n < rule.(float64) {
				say("%v is less than %v", n, rule)
			}
		case "maximum":
			if n, ok := doc.(float64); ok && n > rule.(float64) {
				say("%v is more than %v", n, rule)
			}
		case "minLength":
			if s, ok := doc.(string); ok && float64(len(s)) < rule.(float64) {
				say("%q is shorter than %v", s, rule)
			}
		case "minItems":
			if list, ok := doc.([]any); ok && float64(len(list)) < rule.(float64) {
				say("has %d items, want %v", len(list), rule)
			}
		case "items":
			list, _ := doc.([]any)
			for i, item := range list {
				problems = append(problems, schemaProblems(rule.(map[string]any), item, fmt.Sprintf("%s[%d]", path, i))...)
			}
		case "required":
			for _, name := range rule.([]any) {
				if _, ok := object[name.(string)]; !ok && isObject { // the specification: of what is no object it asks nothing
					say("%v is missing", name)
				}
			}
		case "properties":
			for name, sub := range rule.(map[string]any) {
				if v, ok := object[name]; ok {
					problems = append(problems, schemaProblems(sub.(map[string]any), v, path+"."+name)...)
					evaluated = append(evaluated, name)
				}
			}
		case "not":
			if len(schemaProblems(rule.(map[string]any), doc, path)) == 0 {
				say("matches what it must not: %v", rule)
			}
		case "anyOf":
			if !slices.ContainsFunc(rule.([]any), func(one any) bool { return len(schemaProblems(one.(map[string]any), doc, path)) == 0 }) {
				say("matches none of %v", rule)
			}
		case "allOf":
			for _, one := range rule.([]any) {
				more, names := validate(one.(map[string]any), doc, path)
				problems, evaluated = append(problems, more...), append(evaluated, names...)
			}
		case "if":
			if len(schemaProblems(rule.(map[string]any), doc, path)) == 0 {
				more, names := validate(schema["then"].(map[string]any), doc, path)
				problems, evaluated = append(problems, more...), append(evaluated, names...)
			}
		default:
			say("the schema has the keyword %q, which this check does not know", keyword)
		}
	}
	if schema["additionalProperties"] == false || schema["unevaluatedProperties"] == false {
		for name := range object {
			if !slices.Contains(evaluated, name) {
				say("%s is not a property", name)
			}
		}
	}
	return problems, evaluated
}

func isOfType(rule, doc any) bool {
	if many, ok := rule.([]any); ok {
		return slices.ContainsFunc(many, func(one any) bool { return isOfType(one, doc) })
	}
	switch v := doc.(type) {
	case string:
		return rule == "string"
	case bool:
		return rule == "boolean"
	case float64:
		return rule == "number" || rule == "integer" && v == float64(int64(v))
	case []any:
		return rule == "array"
	case map[string]any:
		return rule == "object"
	case nil:
		return rule == "null"
	}
	return false
}
