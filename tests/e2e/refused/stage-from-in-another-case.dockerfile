FROM scratch AS Builder
FROM BUILDER
