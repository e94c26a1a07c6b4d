# Escape = \\
FROM scratch
