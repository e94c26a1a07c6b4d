# nothing

# to build
