#include <stdio.h>

int main(void) {
    puts("hello from a scratch image");
    return 0;
}
