// syntax=example.com/frontend
{"llb": 1}
