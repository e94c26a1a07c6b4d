FROM scratch
  entrypiont ["a"]
