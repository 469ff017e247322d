package web

import "testing"

func TestTightLineKeepsWhatItMust(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"const a = { b: 1, c: [ 2, 3 ] };\n":                      "const a={b:1,c:[2,3]};\n",
		"return x => x ? 'a, b : c' : \"d = e\";\n":               "return x=>x?'a, b : c':\"d = e\";\n",
		"say('it\\'s , so');\n":                                   "say('it\\'s , so');\n",
		"`a : ${b ? `c , ${d}` : { e: '}' }.e} , f` + g;\n":       "`a : ${b ? `c , ${d}` : { e: '}' }.e} , f`+ g;\n",
		"x = a / b / c, y = / , [/ ] = /.test( z );\n":            "x=a / b / c,y=/ , [/ ] = /.test(z);\n",
		"s.replace(/[^\\d \\/]/g, '') || /^-?[0. ]*$/.test(s);\n": "s.replace(/[^\\d \\/]/g,'')||/^-?[0. ]*$/.test(s);\n",
		"a = b - -c + +d;\n":                                      "a=b - -c + +d;\n",
		"for (const [k, v] of list) if (k in v) return;\n":        "for(const[k,v]of list)if(k in v)return;\n",
	} {
		if got := tightLine(line); got != want {
			t.Errorf("%s became %s, want %s", line, got, want)
		}
	}
}
