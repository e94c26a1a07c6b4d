{
 "syntax": "example.com/frontend"
}
