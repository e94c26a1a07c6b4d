const x: string = 'a'
